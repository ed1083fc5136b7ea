//! Chat templates in Jinja, rendered as transformers renders them.
//!
//! Not there: `strftime_now` and the `generation` block, which no Mistral-family template needs.
//!
//! A template is part of the model's files. It can reach nothing but the conversation and is stopped when it runs too
//! long; how much memory it takes is not bounded (one that doubles a string in a loop is believed).

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Environment, ErrorKind, context};
use serde::Serialize;
use serde_json::ser::{Formatter, PrettyFormatter, Serializer};

use crate::error::{Error, Result};
use crate::{Message, TokenId, Tokenizer};

/// Instructions that a template may run: a long conversation needs some ten thousand, an endless loop does not end.
const FUEL: u64 = 10_000_000;

/// What `raise_exception` said, carried through the engine's own error.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Raised(String);

/// Renders `source` for a conversation.
pub(crate) fn render(
    source: &str,
    messages: &[Message],
    tokenizer: &Tokenizer,
    add_generation_prompt: bool,
) -> Result<String> {
    let env = environment();
    // A role that the tokenizer lacks is undefined, as in transformers: it prints nothing.
    let spelling =
        |id: Option<TokenId>| id.and_then(|id| tokenizer.token(id)).map_or(Value::UNDEFINED, Value::from);
    let template = env.template_from_str(source).map_err(failed)?;
    let text = template.render(context! {
        messages,
        add_generation_prompt,
        bos_token => spelling(tokenizer.bos()),
        eos_token => spelling(tokenizer.eos()),
        unk_token => spelling(tokenizer.unk()),
        pad_token => spelling(tokenizer.pad()),
        // transformers passes these too; templates ask whether they are none.
        tools => Value::from(()),
        documents => Value::from(()),
    });
    text.map_err(failed)
}

fn environment() -> Environment<'static> {
    let mut env = Environment::new();
    env.set_trim_blocks(true);
    env.set_lstrip_blocks(true);
    env.set_fuel(Some(FUEL));
    env.set_unknown_method_callback(minijinja_contrib::pycompat::unknown_method_callback);
    env.set_formatter(|out, state, value| match value.kind() {
        ValueKind::None => Ok(out.write_str("None")?),
        ValueKind::Bool => Ok(out.write_str(if value.is_true() { "True" } else { "False" })?),
        _ => minijinja::escape_formatter(out, state, value),
    });
    env.add_filter("tojson", to_json);
    env.add_function("raise_exception", |message: String| -> std::result::Result<String, minijinja::Error> {
        Err(minijinja::Error::new(ErrorKind::InvalidOperation, "raise_exception")
            .with_source(Raised(message)))
    });
    env
}

fn failed(error: minijinja::Error) -> Error {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(&error);
    while let Some(error) = cause {
        if let Some(Raised(message)) = error.downcast_ref() {
            return Error::Conversation { template: "jinja", message: message.clone() };
        }
        cause = error.source();
    }
    Error::Jinja { reason: format!("{error:#}").lines().next().unwrap_or_default().to_owned() }
}

/// Python's `json.dumps(value, ensure_ascii=False, indent=indent)`: the engine's own filter is for HTML.
fn to_json(value: Value, kwargs: Kwargs) -> std::result::Result<String, minijinja::Error> {
    let indent: Option<usize> = kwargs.get("indent")?;
    let mut out = Vec::new();
    let written = match indent {
        // More would only make a small template print much.
        Some(n) if n > 16 => return Err(ErrorKind::InvalidOperation.into()),
        Some(n) => {
            let indent = " ".repeat(n);
            let pretty = PrettyFormatter::with_indent(indent.as_bytes());
            value.serialize(&mut Serializer::with_formatter(&mut out, pretty))
        }
        None => value.serialize(&mut Serializer::with_formatter(&mut out, PythonSpacing)),
    };
    written.map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string()))?;
    String::from_utf8(out)
        .map_err(|error| minijinja::Error::new(ErrorKind::BadSerialization, error.to_string()))
}

/// `{"a": 1, "b": [2, 3]}`
struct PythonSpacing;

impl Formatter for PythonSpacing {
    fn begin_array_value<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_key<W: ?Sized + std::io::Write>(
        &mut self,
        out: &mut W,
        first: bool,
    ) -> std::io::Result<()> {
        out.write_all(if first { b"" } else { b", " })
    }

    fn begin_object_value<W: ?Sized + std::io::Write>(&mut self, out: &mut W) -> std::io::Result<()> {
        out.write_all(b": ")
    }
}
