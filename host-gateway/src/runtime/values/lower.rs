//! JSON out: a verb's result as text, written straight from the component's values, into
//! a buffer that has an end.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use wasmtime::component::{Type, Val};

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LowerError {
    #[error("the result is larger than {limit} bytes")]
    TooLarge { limit: usize },
    #[error("the result is not of the verb's type")]
    Mistyped,
}

/// `val`, which is of type `ty`, as JSON of at most `limit` bytes.
///
/// # Errors
/// [`LowerError::TooLarge`]; the other never for a value that the component returned.
pub fn lower(val: &Val, ty: &Type, limit: usize) -> Result<String, LowerError> {
    let mut out = Out { text: String::with_capacity(256.min(limit)), limit };
    out.val(val, ty)?;
    Ok(out.text)
}

struct Out {
    text: String,
    limit: usize,
}

type Written = Result<(), LowerError>;

impl Out {
    fn raw(&mut self, text: &str) -> Written {
        if self.text.len() + text.len() > self.limit {
            return Err(LowerError::TooLarge { limit: self.limit });
        }
        self.text.push_str(text);
        Ok(())
    }

    fn string(&mut self, text: &str) -> Written {
        // Checked first: what can't fit is not copied.
        if self.text.len() + text.len() + 2 > self.limit {
            return Err(LowerError::TooLarge { limit: self.limit });
        }
        let quoted = serde_json::to_string(text).map_err(|_| LowerError::Mistyped)?;
        self.raw(&quoted)
    }

    fn number(&mut self, number: impl std::fmt::Display) -> Written {
        self.raw(&number.to_string())
    }

    /// The shortest text that reads back as the same float.
    fn float<F: Into<f64> + serde::Serialize + Copy>(&mut self, float: F) -> Written {
        let wide: f64 = float.into();
        if wide.is_nan() {
            self.raw("\"NaN\"")
        } else if wide.is_infinite() {
            self.raw(if wide > 0.0 { "\"Infinity\"" } else { "\"-Infinity\"" })
        } else {
            let text = serde_json::to_string(&float).map_err(|_| LowerError::Mistyped)?;
            self.raw(&text)
        }
    }

    fn list<T>(
        &mut self,
        items: impl IntoIterator<Item = T>,
        mut each: impl FnMut(&mut Self, T) -> Written,
    ) -> Written {
        self.raw("[")?;
        for (i, item) in items.into_iter().enumerate() {
            if i > 0 {
                self.raw(",")?;
            }
            each(self, item)?;
        }
        self.raw("]")
    }

    fn case(&mut self, name: &str, payload: Option<&Val>, ty: Option<&Type>) -> Written {
        match (payload, ty) {
            (None, None) => self.string(name),
            (Some(val), Some(ty)) => {
                self.raw("{")?;
                self.string(name)?;
                self.raw(":")?;
                self.val(val, ty)?;
                self.raw("}")
            }
            _ => Err(LowerError::Mistyped),
        }
    }

    fn val(&mut self, val: &Val, ty: &Type) -> Written {
        match (val, ty) {
            (Val::Bool(b), Type::Bool) => self.raw(if *b { "true" } else { "false" }),
            (Val::S8(n), Type::S8) => self.number(n),
            (Val::U8(n), Type::U8) => self.number(n),
            (Val::S16(n), Type::S16) => self.number(n),
            (Val::U16(n), Type::U16) => self.number(n),
            (Val::S32(n), Type::S32) => self.number(n),
            (Val::U32(n), Type::U32) => self.number(n),
            (Val::S64(n), Type::S64) => self.string(&n.to_string()),
            (Val::U64(n), Type::U64) => self.string(&n.to_string()),
            (Val::Float32(f), Type::Float32) => self.float(*f),
            (Val::Float64(f), Type::Float64) => self.float(*f),
            (Val::Char(c), Type::Char) => self.string(c.encode_utf8(&mut [0; 4])),
            (Val::String(text), Type::String) => self.string(text),
            (Val::List(items), Type::List(list)) => match list.ty() {
                Type::U8 => self.bytes(items),
                inner => self.list(items, |out, item| out.val(item, &inner)),
            },
            (Val::Record(fields), Type::Record(record)) if fields.len() == record.fields().len() => {
                self.raw("{")?;
                for (i, ((name, val), field)) in fields.iter().zip(record.fields()).enumerate() {
                    if i > 0 {
                        self.raw(",")?;
                    }
                    self.string(name)?;
                    self.raw(":")?;
                    self.val(val, &field.ty)?;
                }
                self.raw("}")
            }
            (Val::Tuple(items), Type::Tuple(tuple)) if items.len() == tuple.types().len() => {
                self.list(items.iter().zip(tuple.types()), |out, (item, ty)| out.val(item, &ty))
            }
            (Val::Variant(name, payload), Type::Variant(variant)) => {
                let case = variant.cases().find(|c| c.name == name).ok_or(LowerError::Mistyped)?;
                self.case(name, payload.as_deref(), case.ty.as_ref())
            }
            (Val::Result(Ok(payload)), Type::Result(result)) => {
                self.case("ok", payload.as_deref(), result.ok().as_ref())
            }
            (Val::Result(Err(payload)), Type::Result(result)) => {
                self.case("err", payload.as_deref(), result.err().as_ref())
            }
            (Val::Enum(name), Type::Enum(_)) => self.string(name),
            (Val::Option(None), Type::Option(_)) => self.raw("null"),
            (Val::Option(Some(inner)), Type::Option(option)) => self.val(inner, &option.ty()),
            (Val::Flags(names), Type::Flags(_)) => self.list(names, |out, name| out.string(name)),
            _ => Err(LowerError::Mistyped),
        }
    }

    fn bytes(&mut self, items: &[Val]) -> Written {
        if self.text.len() + items.len() > self.limit {
            return Err(LowerError::TooLarge { limit: self.limit });
        }
        let byte = |val: &Val| if let Val::U8(b) = val { Ok(*b) } else { Err(LowerError::Mistyped) };
        let bytes = items.iter().map(byte).collect::<Result<Vec<u8>, _>>()?;
        self.string(&STANDARD.encode(bytes))
    }
}
