"""The two published layouts of the Mistral tokenizer, from tokenizer.json in this directory."""

import copy
import json
import os

from tokenizers import Tokenizer

HERE = os.path.dirname(os.path.abspath(__file__))


def legacy_and_metaspace():
    with open(os.path.join(HERE, "tokenizer.json"), encoding="utf-8") as f:
        legacy = json.load(f)
    metaspace = copy.deepcopy(legacy)
    metaspace["normalizer"] = None
    metaspace["pre_tokenizer"] = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}
    return Tokenizer.from_str(json.dumps(legacy)), Tokenizer.from_str(json.dumps(metaspace))
