//! Putting an offered plugin together from chunks: which piece is wanted next, whether a
//! chunk is that piece, when it is whole. Pure; who sends the frames is `link`. Holds at
//! most what was offered, and that within bounds; what it gives is not verified yet.

use sha2::{Digest as _, Sha256};
use viworks_protocol::chunk::{Chunk, Part};
use viworks_protocol::frame::PluginOffer;
use viworks_signing::verify::{MAX_COMPONENT, MAX_STATEMENTS};

/// One plugin that is being fetched.
#[derive(Debug)]
pub struct Fetch {
    offer: PluginOffer,
    digest: [u8; 32],
    component: Vec<u8>,
    statements: Vec<u8>,
}

/// What to ask for: the rest of this part, from `offset` on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Want {
    pub digest: String,
    pub part: Part,
    pub offset: u32,
}

/// What a chunk led to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// More chunks of the same part will come unasked.
    Continue,
    /// This part is whole: ask for the next.
    Ask(Want),
    /// Both parts are whole: [`Fetch::finish`].
    Whole,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FetchError {
    #[error("the offered digest is not lowercase hex SHA-256")]
    Digest,
    #[error("{part:?} of {bytes} bytes is offered; from 1 to {max} are taken")]
    Size { part: Part, bytes: u32, max: usize },
    #[error("a chunk of another plugin")]
    Foreign,
    #[error("a chunk at {found}, wanted {wanted}")]
    Offset { found: u32, wanted: u32 },
    #[error("a chunk says that the part has {found} bytes, {offered} were offered")]
    Total { found: u32, offered: u32 },
    #[error("an empty chunk")]
    Empty,
    #[error("it is not whole yet")]
    Unfinished,
    #[error("the fetched component is not the offered one")]
    Mismatch,
    #[error("the fetched statements are not UTF-8")]
    Text,
}

impl Fetch {
    /// Begin to fetch what was offered.
    ///
    /// # Errors
    /// [`FetchError::Digest`] or [`FetchError::Size`]: nothing is asked for then.
    pub fn new(offer: PluginOffer) -> Result<Self, FetchError> {
        let mut digest = [0; 32];
        let lower = !offer.digest.bytes().any(|b| b.is_ascii_uppercase());
        hex::decode_to_slice(&offer.digest, &mut digest).ok().filter(|()| lower).ok_or(FetchError::Digest)?;
        for (part, bytes, max) in [
            (Part::Component, offer.component_size, MAX_COMPONENT),
            (Part::Statements, offer.statements_size, MAX_STATEMENTS),
        ] {
            if bytes == 0 || bytes as usize > max {
                return Err(FetchError::Size { part, bytes, max });
            }
        }
        Ok(Self { offer, digest, component: Vec::new(), statements: Vec::new() })
    }

    #[must_use]
    pub fn offer(&self) -> &PluginOffer {
        &self.offer
    }

    /// What to ask for now: at the beginning, and again after a reconnect. The statements
    /// come first, since they are small. `None` when both are whole.
    #[must_use]
    pub fn want(&self) -> Option<Want> {
        let part = self.part()?;
        let offset = u32::try_from(self.held(part)).unwrap_or(u32::MAX);
        Some(Want { digest: self.offer.digest.clone(), part, offset })
    }

    /// Take the next chunk.
    ///
    /// # Errors
    /// When it is not the piece that is wanted; the fetch can go on with [`Fetch::want`].
    pub fn take(&mut self, chunk: &Chunk) -> Result<Step, FetchError> {
        let Some(part) = self.part() else { return Ok(Step::Whole) };
        if chunk.digest != self.digest || chunk.part != part {
            return Err(FetchError::Foreign);
        }
        let offered = self.offered(part);
        if chunk.total != offered {
            return Err(FetchError::Total { found: chunk.total, offered });
        }
        let wanted = u32::try_from(self.held(part)).unwrap_or(u32::MAX);
        if chunk.offset != wanted {
            return Err(FetchError::Offset { found: chunk.offset, wanted });
        }
        if chunk.bytes.is_empty() {
            return Err(FetchError::Empty);
        }
        // `Chunk::decode` lets nothing pass that reaches beyond its total.
        let room = (offered - wanted) as usize;
        if chunk.bytes.len() > room {
            return Err(FetchError::Total { found: chunk.total, offered });
        }
        match part {
            Part::Component => self.component.extend_from_slice(&chunk.bytes),
            Part::Statements => self.statements.extend_from_slice(&chunk.bytes),
        }
        Ok(match self.want() {
            Some(want) if want.part == part => Step::Continue,
            Some(want) => Step::Ask(want),
            None => Step::Whole,
        })
    }

    /// The component and its statements.
    ///
    /// # Errors
    /// When they are not whole, or not what was offered.
    pub fn finish(self) -> Result<(PluginOffer, Vec<u8>, String), FetchError> {
        if self.part().is_some() {
            return Err(FetchError::Unfinished);
        }
        if Sha256::digest(&self.component).as_slice() != self.digest {
            return Err(FetchError::Mismatch);
        }
        let statements = String::from_utf8(self.statements).map_err(|_| FetchError::Text)?;
        Ok((self.offer, self.component, statements))
    }

    fn part(&self) -> Option<Part> {
        [Part::Statements, Part::Component].into_iter().find(|part| self.held(*part) < self.offered(*part) as usize)
    }

    fn held(&self, part: Part) -> usize {
        match part {
            Part::Component => self.component.len(),
            Part::Statements => self.statements.len(),
        }
    }

    fn offered(&self, part: Part) -> u32 {
        match part {
            Part::Component => self.offer.component_size,
            Part::Statements => self.offer.statements_size,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    fn offer(component: &[u8], statements: &[u8]) -> PluginOffer {
        PluginOffer {
            plugin: "p".into(),
            version: "1.0.0".into(),
            digest: hex::encode(Sha256::digest(component)),
            component_size: component.len() as u32,
            statements_size: statements.len() as u32,
            shadow: false,
        }
    }

    fn chunk(of: &Fetch, part: Part, offset: u32, bytes: &[u8]) -> Chunk {
        let bytes = Bytes::copy_from_slice(bytes);
        Chunk { part, digest: of.digest, offset, total: of.offered(part), bytes }
    }

    #[test]
    fn it_is_whole_after_the_right_chunks_in_order() -> Result<(), FetchError> {
        let mut fetch = Fetch::new(offer(b"component", b"lines"))?;
        let want = |part, offset| Want { digest: fetch.offer.digest.clone(), part, offset };
        let (first, second, resumed) = (want(Part::Statements, 0), want(Part::Component, 0), want(Part::Component, 4));
        assert_eq!(fetch.want(), Some(first));
        assert_eq!(fetch.take(&chunk(&fetch, Part::Statements, 0, b"lines"))?, Step::Ask(second));
        assert_eq!(fetch.take(&chunk(&fetch, Part::Component, 0, b"comp"))?, Step::Continue);
        assert_eq!(fetch.want(), Some(resumed), "after a reconnect it goes on where it was");
        assert_eq!(fetch.take(&chunk(&fetch, Part::Component, 4, b"onent"))?, Step::Whole);
        let (_, component, statements) = fetch.finish()?;
        assert_eq!((component.as_slice(), statements.as_str()), (&b"component"[..], "lines"));
        Ok(())
    }

    #[test]
    fn what_is_not_the_wanted_piece_is_refused() -> Result<(), FetchError> {
        let mut fetch = Fetch::new(offer(b"component", b"lines"))?;
        let good = chunk(&fetch, Part::Statements, 0, b"li");
        let wrong = |f: &dyn Fn(&mut Chunk)| {
            let mut chunk = good.clone();
            f(&mut chunk);
            chunk
        };
        for (chunk, error) in [
            (wrong(&|c| c.digest[0] ^= 1), FetchError::Foreign),
            (wrong(&|c| c.part = Part::Component), FetchError::Foreign),
            (wrong(&|c| c.offset = 1), FetchError::Offset { found: 1, wanted: 0 }),
            (wrong(&|c| c.total = 99), FetchError::Total { found: 99, offered: 5 }),
            (wrong(&|c| c.bytes = Bytes::new()), FetchError::Empty),
            (wrong(&|c| c.bytes = Bytes::from_static(b"longer")), FetchError::Total { found: 5, offered: 5 }),
        ] {
            assert_eq!(fetch.take(&chunk), Err(error));
        }
        assert_eq!(fetch.take(&good), Ok(Step::Continue));
        assert!(fetch.take(&good).is_err(), "the same again");
        assert_eq!(fetch.finish().err(), Some(FetchError::Unfinished));
        Ok(())
    }

    #[test]
    fn offers_and_ends_that_lie_are_refused() -> Result<(), FetchError> {
        for change in [
            &|o: &mut PluginOffer| o.component_size = u32::MAX,
            &|o: &mut PluginOffer| o.statements_size = 0,
            &|o: &mut PluginOffer| o.digest = o.digest.to_uppercase(),
            &|o: &mut PluginOffer| o.digest.truncate(62),
        ] as [&dyn Fn(&mut PluginOffer); 4]
        {
            let mut offer = offer(b"component", b"lines");
            change(&mut offer);
            assert!(Fetch::new(offer).is_err());
        }
        let mut fetch = Fetch::new(offer(b"component", b"lines"))?;
        fetch.take(&chunk(&fetch, Part::Statements, 0, b"lines"))?;
        fetch.take(&chunk(&fetch, Part::Component, 0, b"c0mponent"))?;
        assert_eq!(fetch.finish().err(), Some(FetchError::Mismatch));
        Ok(())
    }
}
