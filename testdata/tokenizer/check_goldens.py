"""Asks Hugging Face tokenizers, SentencePiece and mistral_common all questions of tokenizer_goldens.json again.

    python check_goldens.py

needs: tokenizers, sentencepiece, mistral_common
"""

import json
import os

import mistral_common
import sentencepiece
from mistral_common.protocol.instruct.messages import AssistantMessage, SystemMessage, UserMessage
from mistral_common.protocol.instruct.request import ChatCompletionRequest
from mistral_common.tokens.tokenizers.mistral import MistralTokenizer
from tokenizers.decoders import DecodeStream

from layouts import HERE, legacy_and_metaspace

KIND = {"user": UserMessage, "assistant": AssistantMessage, "system": SystemMessage}


def main():
    with open(os.path.join(HERE, "tokenizer_goldens.json"), encoding="utf-8") as f:
        goldens = json.load(f)
    model = os.path.join(os.path.dirname(mistral_common.__file__), "data", "tokenizer.model.v1")
    sp = sentencepiece.SentencePieceProcessor(model_file=model)
    legacy, metaspace = legacy_and_metaspace()
    chat = MistralTokenizer.v1()

    def ids(tokenizer, text):
        return tokenizer.encode(text, add_special_tokens=False).ids

    for case in goldens["encode"]:
        text = case["text"]
        assert ids(legacy, text) == case["ids"] == case.get("sentencepiece_ids", sp.encode(text)), text
        assert ids(metaspace, text) == case.get("metaspace_ids", case["ids"]), text
        assert legacy.decode(case["ids"]) == case.get("decoded", text), text
        assert legacy.encode(text).ids == [1] + case["ids"], text
    for case in goldens["special_strings"]:
        text = case["text"]
        assert ids(legacy, text) == case["ids_hf"] and ids(metaspace, text) == case["ids_hf_metaspace"], text
        assert legacy.encode(text).ids == case["ids_hf_with_bos"], text
        assert sp.encode(text) == case["ids_sentencepiece_plain_text"], text
    for case in goldens["decode"]:
        assert legacy.decode(case["ids"]) == case["hf_skip_special"], case
        assert legacy.decode(case["ids"], skip_special_tokens=False) == case["hf_keep_special"], case
    for case in goldens["stream"]:
        stream = DecodeStream(skip_special_tokens=True)
        assert [stream.step(legacy, i) for i in case["ids"]] == case["chunks"], case
        assert legacy.decode(case["ids"]) == case["full_decode"], case
    for case in goldens["chat"]:
        messages = [KIND[m["role"]](content=m["content"]) for m in case["messages"]]
        answer = chat.encode_chat_completion(ChatCompletionRequest(messages=messages))
        assert answer.tokens == case["mistral_common_v1"]["ids"], case
        hf = case["hf_template_2023"]
        if "text" in hf:
            assert ids(legacy, hf["text"]) == hf["ids_legacy"] and ids(metaspace, hf["text"]) == hf["ids_metaspace"]
        for style, case in case.get("komt", {}).items():
            assert legacy.encode(case["text"]).ids == case["ids_add_special"], (style, case)
    print({kind: len(cases) for kind, cases in goldens.items() if isinstance(cases, list)}, "all as recorded")


main()
