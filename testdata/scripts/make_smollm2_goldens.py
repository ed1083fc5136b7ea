"""Goldens of SmolLM2-135M-Instruct in Mistral form: its bf16 weights, run in float32.

usage: make_smollm2_goldens.py MODEL_DIR OUT_DIR     MODEL_DIR from tools/fetch-smollm2; writes OUT_DIR/smollm2
"""

import os
import sys

from tokenizers import Tokenizer

import float64_forward
from golden_lib import case_key, golden_case, load, save_goldens

PROMPTS = {
    "chat": "<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n"
    "<|im_start|>user\nWhat is the capital of France? Explain in two sentences.<|im_end|>\n"
    "<|im_start|>assistant\n",
    "story": "Once upon a time, in a small village by the sea, there lived an old fisherman who had never",
    "short": "The quick brown fox",
    "korean": "안녕하세요. 저는 한국어를 조금 할 수 있습니다. 오늘 날씨가",
    "long": "The history of computing is longer than the history of computing hardware and includes the history of"
    " methods intended for pen and paper or for chalk and slate, with or without the aid of tables. Digital"
    " computing is intimately tied to the representation of numbers, but long before abstractions like the number"
    " arose, there were mathematical concepts to serve the purposes of civilization. These concepts are implicit in"
    " concrete practices such as one-to-one correspondence, a rule to count how many items, and comparison to a"
    " standard, a method for assuming reproducibility in a measurement.",
}
WINDOWS = (None, 16, 64)


def main(model_dir, out_dir):
    tokenizer = Tokenizer.from_file(os.path.join(model_dir, "tokenizer.json"))
    exact_model = float64_forward.load_float64(model_dir)
    tensors, cases = {}, {}
    for window in WINDOWS:
        model = load(model_dir, window)
        for prompt, text in PROMPTS.items():
            if window is not None and prompt not in ("chat", "long"):
                continue  # shorter than the windows, or nothing new
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            key = case_key(window, prompt)
            full = prompt == "short"  # 49,152 logits a position: whole for one short prompt only
            record = golden_case(model, ids, key, tensors, full_logits=full, layers=full)
            _, exact = float64_forward.forward(*exact_model, ids, window)
            # A window of 16 leaves out the first token, which this model leans on: some rows then magnify roundings.
            record["loose_rows"] = float64_forward.loose_rows(tensors[key + ".final_hidden"], exact)
            if prompt == "long" and window == 64:
                del tensors[key + ".final_hidden"]
            record["greedy_text"] = tokenizer.decode(record["greedy"], skip_special_tokens=False)
            cases[key] = {"dtype": "float32", "sliding_window": window, "prompt": prompt, **record}
    save_goldens(os.path.join(out_dir, "smollm2"), tensors, {"prompts": PROMPTS, "cases": cases})


if __name__ == "__main__":
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
