#include "tools/chat_line.h"

#include "src/text/utf8.h"
#include "tools/interrupt.h"

#include <errno.h>
#include <histedit.h>
#include <langinfo.h>
#include <locale.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define HISTORY_LINES 1000
#define LOOK_MS       250 /* how often it is asked whether SIGTERM came or the window changed */
#define PASTE_MS      20  /* nobody types the key after Enter so soon; keys repeat after 30 ms */
#define AHEAD_BYTES   4096
#define PASTE_BEGINS  "\033[200~"
#define PASTE_ENDS    "\033[201~"
#define CTRL_C        '\003'

struct bytes {
    char *data;
    size_t n, capacity;
};

struct chat_line {
    struct chat_line_options options;
    EditLine *el;
    History *history;
    struct winsize size;
    struct bytes ahead; // read from the terminal, not looked at yet: from `at` on
    size_t at;
    const char *keys;   // pressed on the user's behalf before those; "" if none
    size_t paste_bytes; // of `ahead` are a paste that nothing brackets; 0: there is none
    bool escaped;       // the key before was Escape: with Enter that is Alt-Enter
    struct bytes message;
    bool dropped; // Ctrl-C
};

static bool bytes_add(struct bytes *b, const char *data, size_t n) {
    if (b->n + n + 1 > b->capacity) {
        size_t capacity = 2 * (b->n + n + 1);
        char *larger = realloc(b->data, capacity);
        if (!larger)
            return false;
        b->data = larger;
        b->capacity = capacity;
    }
    memcpy(b->data + b->n, data, n);
    b->n += n;
    b->data[b->n] = '\0';
    return true;
}

// --- the keyboard --------------------------------------------------------------------------------

static size_t bytes_ahead(const struct chat_line *l) {
    return l->ahead.n - l->at;
}

// Take what has been typed, waiting for it. 0: nothing within that time; −1: the end, or an error.
static int read_ahead(struct chat_line *l, int wait_ms) {
    struct pollfd poller = { .fd = STDIN_FILENO, .events = POLLIN };
    int ready = poll(&poller, 1, wait_ms);
    if (ready <= 0)
        return ready == 0 || errno == EINTR ? 0 : -1;
    char some[AHEAD_BYTES];
    ssize_t n = read(STDIN_FILENO, some, sizeof some);
    if (n < 0)
        return errno == EINTR || errno == EAGAIN ? 0 : -1;
    if (l->at == l->ahead.n)
        l->at = l->ahead.n = 0;
    return n > 0 && bytes_add(&l->ahead, some, (size_t)n) ? 1 : -1;
}

static void heed_size(struct chat_line *l) {
    struct winsize size;
    if (ioctl(STDIN_FILENO, TIOCGWINSZ, &size) != 0 ||
        (size.ws_col == l->size.ws_col && size.ws_row == l->size.ws_row))
        return;
    l->size = size;
    el_resize(l->el);
    el_set(l->el, EL_REFRESH);
}

/* What was typed while the terminal was not raw, the kernel has looked at: of a Ctrl-D it keeps a
 * NUL, and a Ctrl-C was a signal, for an answer that has ended meanwhile. */
static void heed_typed_ahead(struct chat_line *l) {
    interrupt_forgive();
    size_t before = bytes_ahead(l);
    read_ahead(l, 0);
    for (size_t i = l->at + before; i < l->ahead.n; i++)
        if (l->ahead.data[i] == '\0')
            l->ahead.data[i] = '\004';
}

// The next byte that was typed; EOF: the end, a signal.
static int next_byte(struct chat_line *l) {
    while (bytes_ahead(l) == 0) {
        if (interrupt_requested(NULL)) {
            l->dropped = interrupt_forgive(); // somebody's SIGINT is a Ctrl-C too
            return EOF;
        }
        if (read_ahead(l, LOOK_MS) < 0)
            return EOF;
        heed_size(l);
    }
    return (unsigned char)l->ahead.data[l->at++];
}

static bool holds_command(struct chat_line *l) {
    const LineInfo *line = el_line(l->el);
    return l->options.is_command(line->buffer, (size_t)(line->lastchar - line->buffer));
}

/* Enter was pressed. If more has come at the same time, it is a paste: up to the first key that is no
 * text, or a line that is a command. Returns false if there is none. */
static bool find_paste(struct chat_line *l) {
    if (holds_command(l))
        return false;
    while (read_ahead(l, PASTE_MS) > 0)
        ;
    const char *text = l->ahead.data + l->at;
    size_t n = bytes_ahead(l), end = 0;
    bool line_begins = true;
    while (end < n) {
        unsigned char c = (unsigned char)text[end];
        bool line_ends = c == '\r' || c == '\n';
        if ((c < ' ' && !line_ends && c != '\t') || c == 0x7F)
            break;
        if (line_begins && l->options.is_command(text + end, n - end))
            break;
        line_begins = line_ends;
        end++;
    }
    l->paste_bytes = end;
    return end > 0;
}

/* One character for libedit. */
static int read_key(EditLine *el, wchar_t *out) {
    struct chat_line *l;
    el_get(el, EL_CLIENTDATA, &l);
    if (*l->keys) {
        *out = *l->keys++;
        return 1;
    }
    int byte = next_byte(l);
    bool escaped = l->escaped;
    l->escaped = byte == '\033';
    if ((byte == '\r' || byte == '\n') && !escaped && find_paste(l)) {
        l->keys = PASTE_BEGINS;
        *out = *l->keys++;
        return 1;
    }
    char character[UTF8_MAX_BYTES];
    uint32_t n = 0;
    while (byte != EOF) {
        character[n++] = (char)byte;
        struct utf8_step step = utf8_next(character, n);
        if (step.kind == UTF8_CHARACTER) {
            *out = (wchar_t)utf8_decode(character, &n);
            return 1;
        }
        if (step.kind == UTF8_BROKEN) {
            l->at -= n - step.bytes; // what follows the broken ones may be whole
            *out = 0xFFFD;
            return 1;
        }
        byte = next_byte(l);
    }
    return interrupt_requested(NULL) ? -1 : 0;
}

// --- keys of our own -----------------------------------------------------------------------------

static unsigned char key_new_line(EditLine *el, int key) {
    (void)key;
    return el_insertstr(el, "\n") == 0 ? CC_REFRESH : CC_ERROR;
}

// What a paste may hold: lines of text. Everything else in it would be a key, and not the user's.
static bool add_pasted(struct bytes *out, const char *text, size_t n) {
    for (size_t i = 0; i < n;) {
        struct utf8_step step = utf8_next(text + i, n - i);
        unsigned char c = (unsigned char)text[i];
        bool fits = true;
        if (step.kind != UTF8_CHARACTER)
            fits = bytes_add(out, UTF8_REPLACEMENT, sizeof UTF8_REPLACEMENT - 1);
        else if (c == '\r')
            fits = bytes_add(out, "\n", i + 1 < n && text[i + 1] == '\n' ? 0 : 1);
        else if ((c >= ' ' && c != 0x7F) || c == '\n' || c == '\t')
            fits = bytes_add(out, text + i, step.bytes);
        if (!fits)
            return false;
        i += step.bytes;
    }
    return true;
}

// The bytes up to the terminal's mark that the paste ends.
static bool read_bracketed(struct chat_line *l, struct bytes *out) {
    const size_t n_mark = sizeof PASTE_ENDS - 1;
    for (int byte; (byte = next_byte(l)) != EOF;) {
        char c = (char)byte;
        // A terminal that never says where a paste ends must not take Ctrl-C away: one alone is a key.
        if (c == CTRL_C && bytes_ahead(l) == 0 && read_ahead(l, PASTE_MS) == 0) {
            l->dropped = true;
            return true;
        }
        if (!bytes_add(out, &c, 1))
            return false;
        if (out->n >= n_mark && memcmp(out->data + out->n - n_mark, PASTE_ENDS, n_mark) == 0) {
            out->n -= n_mark;
            return true;
        }
    }
    return true;
}

static unsigned char key_paste(EditLine *el, int key) {
    struct chat_line *l;
    struct bytes raw = { 0 }, text = { 0 };
    bool fits;
    (void)key;
    el_get(el, EL_CLIENTDATA, &l);
    if (l->paste_bytes) { // the Enter before it, then the lines; the last one's Enter sends it
        fits = bytes_add(&raw, "\n", 1) && bytes_add(&raw, l->ahead.data + l->at, l->paste_bytes);
        l->at += l->paste_bytes;
        l->paste_bytes = 0;
        bool ends = raw.n > 1 && (raw.data[raw.n - 1] == '\n' || raw.data[raw.n - 1] == '\r');
        raw.n -= ends;
        l->keys = ends || bytes_ahead(l) ? "\n" : "";
    } else { // what comes after it, is typed; its last line's end would be seen as an empty line
        fits = read_bracketed(l, &raw);
        while (raw.n > 0 && (raw.data[raw.n - 1] == '\n' || raw.data[raw.n - 1] == '\r'))
            raw.n--;
    }
    fits = fits && (l->dropped || add_pasted(&text, raw.data, raw.n));
    if (fits && text.n > 0)
        fits = el_insertstr(el, text.data) == 0;
    free(raw.data);
    free(text.data);
    if (l->dropped)
        return CC_EOF;
    return fits ? CC_REFRESH : CC_ERROR;
}

static void to_end(EditLine *el) {
    const LineInfo *line = el_line(el);
    if (line->cursor == line->lastchar)
        return;
    el_cursor(el, (int)(line->lastchar - line->cursor));
    el_set(el, EL_REFRESH);
}

static unsigned char key_drop(EditLine *el, int key) {
    struct chat_line *l;
    (void)key;
    el_get(el, EL_CLIENTDATA, &l);
    l->dropped = true;
    to_end(el);
    return CC_EOF;
}

static unsigned char key_suspend(EditLine *el, int key) {
    (void)key;
    to_end(el);
    el_set(el, EL_PREP_TERM, 0);
    raise(SIGTSTP);
    el_set(el, EL_PREP_TERM, 1);
    return CC_REDISPLAY;
}

// --- open, read, close ---------------------------------------------------------------------------

static char *prompt_of(EditLine *el) {
    struct chat_line *l;
    el_get(el, EL_CLIENTDATA, &l);
    return (char *)l->options.prompt;
}

// Text is UTF-8 here, whatever the environment says of the language.
static void speak_utf8(void) {
    if (!setlocale(LC_CTYPE, "") || strcmp(nl_langinfo(CODESET), "UTF-8") != 0)
        setlocale(LC_CTYPE, "C.UTF-8");
}

static void set_up(struct chat_line *l) {
    EditLine *el = l->el;
    HistEvent event;
    el_set(el, EL_CLIENTDATA, l);
    el_set(el, EL_PROMPT, prompt_of);
    el_set(el, EL_EDITOR, "emacs");
    el_set(el, EL_GETCFN, read_key);
    history(l->history, &event, H_SETSIZE, HISTORY_LINES);
    history(l->history, &event, H_SETUNIQUE, 1);
    el_set(el, EL_HIST, history, l->history);
    el_source(el, NULL);
    // While a message is typed, Ctrl-C and Ctrl-Z are keys.
    el_set(el, EL_SETTY, "-d", "-isig", NULL);
    // Wide, for libedit keeps these: of the narrow ones it would keep copies for ever.
    el_wset(el, EL_ADDFN, L"sluice-new-line", L"Begin a new line", key_new_line);
    el_wset(el, EL_ADDFN, L"sluice-paste", L"Take in what is pasted", key_paste);
    el_wset(el, EL_ADDFN, L"sluice-drop", L"Drop what was typed", key_drop);
    el_wset(el, EL_ADDFN, L"sluice-suspend", L"Stop until fg", key_suspend);
    el_set(el, EL_BIND, "\033\r", "sluice-new-line", NULL);
    el_set(el, EL_BIND, "\033\n", "sluice-new-line", NULL);
    el_set(el, EL_BIND, PASTE_BEGINS, "sluice-paste", NULL);
    el_set(el, EL_BIND, "^C", "sluice-drop", NULL);
    el_set(el, EL_BIND, "^Z", "sluice-suspend", NULL);
    el_set(el, EL_BIND, "^R", "em-inc-search-prev", NULL);
}

enum status chat_line_open(struct chat_line **out, const struct chat_line_options *options,
                           struct err *err) {
    struct chat_line *l = *out = calloc(1, sizeof *l);
    if (!l)
        return err_set(err, ERR_MEMORY, "no memory for a line");
    l->options = *options;
    l->keys = "";
    speak_utf8();
    ioctl(STDIN_FILENO, TIOCGWINSZ, &l->size);
    l->history = history_init();
    l->el = el_init("sluice", stdin, options->screen, stderr);
    if (!l->el || !l->history) {
        chat_line_close(l);
        *out = NULL;
        return err_set(err, ERR_SYSTEM, "the terminal cannot be used for editing: is TERM right?");
    }
    set_up(l);
    return OK;
}

void chat_line_close(struct chat_line *l) {
    if (!l)
        return;
    if (l->el)
        el_end(l->el);
    if (l->history)
        history_end(l->history);
    free(l->ahead.data);
    free(l->message.data);
    free(l);
}

static void bracket(struct chat_line *l, bool on) {
    if (l->options.escapes)
        fputs(on ? "\033[?2004h" : "\033[?2004l", l->options.screen);
    fflush(l->options.screen);
}

enum status chat_line_read(struct chat_line *l, const char **text, size_t *n_bytes) {
    int n = 0;
    l->dropped = false;
    l->message.n = 0;
    // Raw before the prompt is seen: who sees it may type, and Ctrl-C and Ctrl-D are keys then.
    el_set(l->el, EL_PREP_TERM, 1);
    heed_typed_ahead(l);
    bracket(l, true);
    const char *line = el_gets(l->el, &n);
    bracket(l, false);
    if (l->dropped || !line || n <= 0)
        fputs(l->dropped ? "^C\n" : "\n", l->options.screen);
    if (l->dropped)
        return AGAIN;
    if (!line || n <= 0)
        return interrupt_requested(NULL) ? CANCELLED : DONE;
    size_t length = (size_t)n - (line[n - 1] == '\n');
    HistEvent event;
    if (!bytes_add(&l->message, line, length))
        return DONE;
    *text = l->message.data;
    *n_bytes = l->message.n;
    if (length > 0)
        history(l->history, &event, H_ENTER, l->message.data);
    return OK;
}
