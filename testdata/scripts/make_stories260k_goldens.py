"""Goldens of stories260K, a small trained model, in float32 with three windows.

usage: make_stories260k_goldens.py MODEL_DIR OUT_DIR     MODEL_DIR from convert_stories260k.py; writes OUT_DIR/stories260k
"""

import os
import sys

from tokenizers import Tokenizer

from golden_lib import case_key, golden_case, load, save_goldens

PROMPTS = {
    "bos": "",
    "start": "Once upon a time",
    "long": "Lily and Tom are friends. They like to play in the park. One day, they see a big dog. The dog is brown"
    ' and has a red collar. Lily says, "Hello, dog! What is your name?" The dog wags its tail and barks. Tom is'
    " scared. He hides behind a tree.",
}
WINDOWS = (None, 16, 64)
BOS = 1


def main(model_dir, out_dir):
    tokenizer = Tokenizer.from_file(os.path.join(model_dir, "tokenizer.json"))
    tensors, cases = {}, {}
    for window in WINDOWS:
        model = load(model_dir, window)
        for prompt, text in PROMPTS.items():
            ids = tokenizer.encode(text).ids if text else [BOS]
            key = case_key(window, prompt)
            layers = prompt == "start" and window is None
            record = golden_case(
                model,
                ids,
                key,
                tensors,
                full_logits=window != 64,
                layers=layers,
                inner=layers,
                n_greedy=200,
                uncached=True,
            )
            record["greedy_text"] = tokenizer.decode(record["greedy"])
            cases[key] = {"dtype": "float32", "sliding_window": window, "prompt": prompt, **record}
    save_goldens(os.path.join(out_dir, "stories260k"), tensors, {"prompts": PROMPTS, "cases": cases})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
