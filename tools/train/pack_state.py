"""A training state of under 100 MB, for keeping: all but Muon's momentum, which is the average of
the last 20 gradients and comes back as quickly (train.py --resume takes both forms).

    python pack_state.py STATE OUT"""

import os
import sys

import torch


def main(path, out):
    state = torch.load(path, weights_only=True)
    first, second = state["optimizer"]["first"], state["optimizer"]["second"]
    # Parameters that Muon moves have no second moment: a tensor of one element stands there.
    state["optimizer"]["first"] = [torch.zeros(1) if s.numel() == 1 and f.ndim > 1 else f
                                   for f, s in zip(first, second)]
    torch.save(state, out + ".new")
    os.replace(out + ".new", out)
    print(f"{out}: step {state['step']}, {os.path.getsize(out) / 1e6:.1f} MB")


if __name__ == "__main__":
    main(*sys.argv[1:])
