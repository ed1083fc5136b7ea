"""Conversations through Jinja chat templates and komt's own forms, as transformers renders and encodes them.

    python make_template_goldens.py [SMOLLM2_DIR]

writes template_goldens.json. The Mistral-like and ChatML-like templates are ours; the third is that of
smollm2_tokenizer_config.json. SMOLLM2_DIR holds the tokenizer.json of SmolLM2-135M-Instruct; without it the cases of byte-level
BPE are left out.

needs: transformers, jinja2
"""

import json
import os
import sys

import tokenizers
import transformers
from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream
from transformers import PreTrainedTokenizerFast

from layouts import HERE, legacy_and_metaspace

ALTERNATING = """\
{%- if messages[0].role == 'system' %}
    {%- set preface = messages[0].content.strip() + '\\n\\n' %}
    {%- set turns = messages[1:] %}
{%- else %}
    {%- set preface = '' %}
    {%- set turns = messages %}
{%- endif %}
{{- bos_token }}
{%- for turn in turns %}
    {%- if loop.index0 % 2 == 0 and turn.role != 'user' or loop.index0 % 2 == 1 and turn.role != 'assistant' %}
        {{- raise_exception('turn ' ~ loop.index ~ ' must not be by the ' ~ turn.role) }}
    {%- endif %}
    {%- if turn.role == 'user' %}
        {{- '[INST] ' ~ (preface if loop.first else '') ~ turn.content ~ ' [/INST]' }}
    {%- else %}
        {{- ' ' ~ turn.content.rstrip() ~ eos_token }}
    {%- endif %}
{%- endfor %}
"""

CHATML = """\
{% macro block(role, content) %}
<|{{ role }}|>
{{ content | trim }}{{ eos_token }}
{% endmacro %}
{% set state = namespace(seen=0) %}
{% if tools is not none %}
{{ tools | tojson(indent=2) }}
{% endif %}
{% for message in messages %}
    {% if message['role'] == 'system' and not loop.first %}
        {{ raise_exception("system comes first") }}
    {% endif %}
    {% if message.content.startswith('/skip') %}
        {% continue %}
    {% endif %}
    {% set state.seen = state.seen + 1 %}
{{ block(message.role | upper, message.content) }}
{% endfor %}
{% if add_generation_prompt %}
<|ASSISTANT|>
{% endif %}
{{ messages[0].role == 'user' }} {{ tools }} [{{ pad_token }}]
{{ {'seen': state.seen, 'roles': messages | map(attribute='role') | list} | tojson }}
"""

CONVERSATIONS = [
    [("user", "안녕하세요")],
    [("user", "  앞뒤 공백  ")],
    [("user", "줄\n바꿈\n")],
    [("user", '"따옴표" & <꺾쇠> \\ 역빗금')],
    [("system", " 짧게 답하세요. "), ("user", "서울은 어디인가요?")],
    [("user", "a"), ("assistant", "b "), ("user", "c")],
    [("user", "뷁?"), ("assistant", "😀 네\n"), ("user", "쀍!"), ("assistant", "아니요"), ("user", "왜요?")],
    [("system", "s"), ("user", "a"), ("assistant", "b"), ("user", "c")],
    [("user", "/skip 이것"), ("assistant", "그래요"), ("user", "끝")],
    [("user", "a"), ("assistant", "b")],
    [("assistant", "먼저")],
    [("user", "a"), ("user", "b")],
    [("user", "a"), ("system", "b"), ("user", "c")],
]

KOMT = {
    "komt": "[INST]{} [/INST]",
    "komt-heading": "<s>[INST] {} [/INST]</s>",
    "komt-llama2": "### instruction: {}\n\n### Response: ",
}

TEXTS = [
    "", " ", "Hello, world!", " leading", "trailing ", "안녕하세요, 만나서 반갑습니다!", "뷁 쀍 똠방각하", "👨‍👩‍👧‍👦 가족 🇰🇷",
    "tabs\tand\nlines\r\n", "12345 3.14", "x = {'a': [1, 2]}", "<|im_start|>user\n안녕<|im_end|>\n", "가a나b", "\u0000\u0001", "ﬁ e\u0301",
]


def ids_of(tokenizer, text, bos):
    """Exactly one BOS, whoever writes it."""
    return tokenizer.encode(text, add_special_tokens=not text.startswith(bos)).ids


def jinja_cases(wrapped, legacy, metaspace, smollm2_template):
    for name, template in [("alternating", ALTERNATING), ("chatml", CHATML), ("smollm2", smollm2_template)]:
        for conversation in CONVERSATIONS:
            messages = [{"role": role, "content": content} for role, content in conversation]
            case = {"template": name, "messages": messages}
            try:
                text = wrapped.apply_chat_template(
                    messages, chat_template=template, tokenize=False, add_generation_prompt=True
                )
                case["text"] = text
                case["ids_legacy"] = ids_of(legacy, text, "<s>")
                case["ids_metaspace"] = ids_of(metaspace, text, "<s>")
            except Exception as error:  # jinja2.TemplateError of whichever environment transformers made.
                case["error"] = str(error)
            yield case


def komt_cases(legacy, metaspace):
    contents = [c[0][1] for c in CONVERSATIONS if len(c) == 1]
    for name, form in KOMT.items():
        for content in contents:
            text = form.format(content)
            ids = ids_of(legacy, text, "<s>"), ids_of(metaspace, text, "<s>")
            yield {"template": name, "content": content, "text": text, "ids_legacy": ids[0], "ids_metaspace": ids[1]}


def smollm2_cases(dir, template):
    tokenizer = Tokenizer.from_file(os.path.join(dir, "tokenizer.json"))
    wrapped = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<|im_start|>", eos_token="<|im_end|>")
    for text in TEXTS:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        stream = DecodeStream(skip_special_tokens=True)
        chunks = [stream.step(tokenizer, i) for i in ids]
        yield {"text": text, "ids": ids, "decoded": tokenizer.decode(ids), "chunks": chunks}
    for conversation in CONVERSATIONS:
        messages = [{"role": role, "content": content} for role, content in conversation]
        text = wrapped.apply_chat_template(messages, chat_template=template, tokenize=False, add_generation_prompt=True)
        yield {"messages": messages, "text": text, "ids": tokenizer.encode(text, add_special_tokens=False).ids}


def main(smollm2_dir=None):
    legacy, metaspace = legacy_and_metaspace()
    wrapped = PreTrainedTokenizerFast(tokenizer_object=legacy, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
    with open(os.path.join(HERE, "smollm2_tokenizer_config.json"), encoding="utf-8") as f:
        smollm2_template = json.load(f)["chat_template"]
    goldens = {
        "made_by": {"transformers": transformers.__version__, "tokenizers": tokenizers.__version__},
        "templates": {"alternating": ALTERNATING, "chatml": CHATML, "smollm2": smollm2_template},
        "jinja": list(jinja_cases(wrapped, legacy, metaspace, smollm2_template)),
        "komt": list(komt_cases(legacy, metaspace)),
        "smollm2": list(smollm2_cases(smollm2_dir, smollm2_template)) if smollm2_dir else [],
    }
    with open(os.path.join(HERE, "template_goldens.json"), "w", encoding="utf-8") as f:
        json.dump(goldens, f, ensure_ascii=True, indent=0)
    print({kind: len(cases) for kind, cases in goldens.items()})


main(*sys.argv[1:])
