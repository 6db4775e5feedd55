//! A component's outline, read from its bytes without decoding its types: preamble,
//! imports, the docs section. Cheap enough for admission. Refuses core modules,
//! precompiled code, nested surprises and anything over the size cap.

use std::ops::Range;
use wasmparser::{Chunk, Parser, Payload};

/// Bytes; no component is larger. Guests in Python have 18 MB.
pub const MAX_COMPONENT: usize = 24 * 1024 * 1024;
/// The custom section that holds the doc comments of the plugin's WIT.
pub const DOCS_SECTION: &str = "viworks-docs";
const MAX_IMPORTS: usize = 1_000;

/// What is read without decoding.
#[derive(Debug)]
pub struct Outline<'a> {
    /// The exact names of the top-level imports, sorted.
    pub imports: Vec<String>,
    /// The docs section's content.
    pub docs: Option<&'a [u8]>,
    /// Where the docs section lies, its header included.
    pub docs_at: Option<Range<usize>>,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("component of {bytes} bytes, at most {MAX_COMPONENT} are read")]
    TooLarge { bytes: usize },
    #[error("a core module, not a component")]
    CoreModule,
    #[error("precompiled code, not a component; only the gateway makes its own")]
    Precompiled,
    #[error("not a WebAssembly component")]
    NotWasm,
    #[error("not a well-formed component")]
    Malformed(#[source] wasmparser::BinaryReaderError),
    #[error("more than {MAX_IMPORTS} imports")]
    TooManyImports,
    #[error("more than one section {DOCS_SECTION:?}")]
    DocsTwice,
}

/// Size and first eight bytes: a component of the binary format that we read.
///
/// # Errors
/// Says what it is instead.
pub fn preamble(bytes: &[u8]) -> Result<(), Error> {
    if bytes.len() > MAX_COMPONENT {
        return Err(Error::TooLarge { bytes: bytes.len() });
    }
    match bytes {
        // Wasmtime's .cwasm is an ELF file.
        [0x7f, b'E', b'L', b'F', ..] => Err(Error::Precompiled),
        [0x00, b'a', b's', b'm', 0x01, 0x00, 0x00, 0x00, ..] => Err(Error::CoreModule),
        [0x00, b'a', b's', b'm', 0x0d, 0x00, 0x01, 0x00, ..] => Ok(()),
        _ => Err(Error::NotWasm),
    }
}

/// Read the outline. Nested modules and components are stepped over, so their imports
/// and sections don't count.
///
/// # Errors
/// See [`Error`].
pub fn outline(bytes: &[u8]) -> Result<Outline<'_>, Error> {
    preamble(bytes)?;
    let mut outline = Outline { imports: Vec::new(), docs: None, docs_at: None };
    let mut parser = Parser::new(0);
    let mut at = 0;
    loop {
        let rest = bytes.get(at..).unwrap_or_default();
        let Chunk::Parsed { consumed, payload } = parser.parse(rest, true).map_err(Error::Malformed)? else {
            return Err(Error::NotWasm);
        };
        let section = at..at + consumed;
        at += consumed;
        match payload {
            Payload::ComponentImportSection(imports) => {
                for import in imports {
                    if outline.imports.len() == MAX_IMPORTS {
                        return Err(Error::TooManyImports);
                    }
                    outline.imports.push(import.map_err(Error::Malformed)?.name.name.to_owned());
                }
            }
            Payload::ModuleSection { unchecked_range, .. } | Payload::ComponentSection { unchecked_range, .. } => {
                at = at.max(unchecked_range.end);
                if at > bytes.len() {
                    return Err(Error::NotWasm);
                }
            }
            Payload::CustomSection(custom) if custom.name() == DOCS_SECTION => {
                if outline.docs_at.replace(section).is_some() {
                    return Err(Error::DocsTwice);
                }
                outline.docs = Some(custom.data());
            }
            Payload::End(_) => break,
            _ => {}
        }
    }
    outline.imports.sort_unstable();
    Ok(outline)
}

#[cfg(test)]
mod tests;
