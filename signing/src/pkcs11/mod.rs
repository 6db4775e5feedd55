//! Ed25519 keys in PKCS#11 tokens (OASIS PKCS#11 3.0: CKK_EC_EDWARDS, CKM_EDDSA). The
//! private key never leaves its token. Refuses a URI that fits several keys or none, and
//! a token whose signature does not verify.

mod uri;

use cryptoki::context::{CInitializeArgs, CInitializeFlags, Pkcs11};
use cryptoki::error::{Error as Cryptoki, RvError};
use cryptoki::mechanism::Mechanism;
use cryptoki::mechanism::eddsa::{EddsaParams, EddsaSignatureScheme};
use cryptoki::object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle};
use cryptoki::session::{Session, UserType};
use cryptoki::slot::Slot;
use cryptoki::types::AuthPin;

use crate::keyref;
use crate::keys::{self, PublicKey};
use crate::signer::{self, Signer};

pub use uri::Uri;

/// DER of the OID 1.3.101.112, Ed25519.
const ED25519: [u8; 5] = [0x06, 0x03, 0x2b, 0x65, 0x70];

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("pkcs11 URI: {what}")]
    Uri { what: String },
    #[error("the PIN of token {token:?}")]
    Pin { token: String, source: Box<keyref::Error> },
    #[error("can't {step} with the PKCS#11 module {module}")]
    Module { step: &'static str, module: String, source: Cryptoki },
    #[error("no token {token:?} in {module}; there {}", shown(there))]
    NoToken { token: String, module: String, there: Vec<String> },
    #[error("{count} tokens fit {token:?}; tell them apart by serial=")]
    Tokens { token: String, count: usize },
    #[error("{count} private Ed25519 keys fit {object}; wanted one")]
    Keys { object: String, count: usize },
    #[error("the token has no readable public half of {object}")]
    NoPublic { object: String },
    #[error("a key {object} is in the token already and is not overwritten")]
    Exists { object: String },
    #[error("the token's public key")]
    Public(#[from] keys::Error),
    #[error("the token's signature does not verify with its public key")]
    Signature,
}

fn shown(labels: &[String]) -> String {
    match labels {
        [] => "is none".to_owned(),
        some => format!("are {}", some.join(", ")),
    }
}

/// A private key in a token, with a session that is logged in.
pub struct TokenKey {
    session: Session,
    private: ObjectHandle,
    public: PublicKey,
}

impl std::fmt::Debug for TokenKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "TokenKey({})", self.public.id())
    }
}

impl TokenKey {
    /// Log in and find the key.
    ///
    /// # Errors
    /// When module, token, PIN or key are not what the URI says.
    pub fn open(uri: &Uri) -> Result<Self, Error> {
        let session = login(uri, false)?;
        let found = find(&session, uri, ObjectClass::PRIVATE_KEY)?;
        let [private] = found[..] else {
            return Err(Error::Keys { object: uri.object_shown(), count: found.len() });
        };
        let public = public_of(&session, uri, private)?;
        Ok(Self { session, private, public })
    }

    /// Make a new key pair in the token, under the URI's label and id.
    ///
    /// # Errors
    /// When the token holds a key of that name already, or can't make one.
    pub fn generate(uri: &Uri) -> Result<Self, Error> {
        let Some(label) = &uri.object else {
            return Err(Error::Uri { what: "object=LABEL is missing: the new key's name".into() });
        };
        let session = login(uri, true)?;
        if !find(&session, uri, ObjectClass::PRIVATE_KEY)?.is_empty() {
            return Err(Error::Exists { object: uri.object_shown() });
        }
        let id = match &uri.id {
            Some(id) => id.clone(),
            None => {
                let mut id = vec![0; 16];
                getrandom::fill(&mut id).map_err(|_| Error::Uri { what: "no random id; give id=".into() })?;
                id
            }
        };
        let named = [
            Attribute::Token(true),
            Attribute::KeyType(KeyType::EC_EDWARDS),
            Attribute::Label(label.clone().into_bytes()),
            Attribute::Id(id),
        ];
        let mut public = named.to_vec();
        public.extend([Attribute::EcParams(ED25519.to_vec()), Attribute::Verify(true), Attribute::Private(false)]);
        let mut private = named.to_vec();
        private.extend([
            Attribute::Private(true),
            Attribute::Sensitive(true),
            Attribute::Extractable(false),
            Attribute::Sign(true),
        ]);
        let (_, private) = session
            .generate_key_pair(&Mechanism::EccEdwardsKeyPairGen, &public, &private)
            .map_err(uri.failed("make a key"))?;
        let public = public_of(&session, uri, private)?;
        Ok(Self { session, private, public })
    }

    fn signature(&self, message: &[u8]) -> Result<[u8; 64], Box<dyn std::error::Error + Send + Sync>> {
        let mechanism = Mechanism::Eddsa(EddsaParams::new(EddsaSignatureScheme::Ed25519));
        let bytes = self.session.sign(&mechanism, self.private, message)?;
        let signature = <[u8; 64]>::try_from(bytes).map_err(|_| Error::Signature)?;
        // A token with another kind of EdDSA, or a fault, is found here and not by gateways.
        if self.public.verify(message, &signature) { Ok(signature) } else { Err(Error::Signature.into()) }
    }
}

impl Signer for TokenKey {
    fn public(&self) -> PublicKey {
        self.public
    }

    fn sign(&self, message: &[u8]) -> Result<[u8; 64], signer::Error> {
        self.signature(message).map_err(|source| signer::Error { keyid: self.public.id(), source })
    }
}

/// A session of the URI's token, logged in. A module stays loaded and a token logged in
/// until the program ends: other keys may be in them.
fn login(uri: &Uri, write: bool) -> Result<Session, Error> {
    let module = Pkcs11::new(&uri.module).map_err(uri.failed("begin"))?;
    match module.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK)) {
        Ok(()) | Err(Cryptoki::Pkcs11(RvError::CryptokiAlreadyInitialized, _)) => {}
        Err(error) => return Err(uri.failed("begin")(error)),
    }
    let slot = slot(&module, uri)?;
    let session = if write { module.open_rw_session(slot) } else { module.open_ro_session(slot) };
    let session = session.map_err(uri.failed("open a session"))?;
    let pin = match &uri.pin {
        Some(source) => {
            let name = uri.token.clone();
            let pin = source.read_line().map_err(|source| Error::Pin { token: name, source: Box::new(source) })?;
            Some(AuthPin::from(pin.to_string()))
        }
        // The token asks for it by its own keypad.
        None => None,
    };
    match session.login(UserType::User, pin.as_ref()) {
        Ok(()) | Err(Cryptoki::Pkcs11(RvError::UserAlreadyLoggedIn, _)) => Ok(session),
        Err(error) => Err(uri.failed("log in")(error)),
    }
}

fn slot(module: &Pkcs11, uri: &Uri) -> Result<Slot, Error> {
    let mut there = Vec::new();
    let mut fit = Vec::new();
    for slot in module.get_slots_with_token().map_err(uri.failed("list tokens"))? {
        let info = module.get_token_info(slot).map_err(uri.failed("list tokens"))?;
        if !info.token_initialized() {
            continue;
        }
        there.push(info.label().to_owned());
        if info.label() == uri.token && uri.serial.as_ref().is_none_or(|serial| info.serial_number() == serial) {
            fit.push(slot);
        }
    }
    match fit[..] {
        [slot] => Ok(slot),
        [] => Err(Error::NoToken { token: uri.token.clone(), module: uri.module.display().to_string(), there }),
        _ => Err(Error::Tokens { token: uri.token.clone(), count: fit.len() }),
    }
}

/// The Ed25519 objects of that class that the URI names.
fn find(session: &Session, uri: &Uri, class: ObjectClass) -> Result<Vec<ObjectHandle>, Error> {
    let mut wanted = vec![Attribute::Class(class), Attribute::KeyType(KeyType::EC_EDWARDS)];
    wanted.extend(uri.object.clone().map(|label| Attribute::Label(label.into_bytes())));
    wanted.extend(uri.id.clone().map(Attribute::Id));
    session.find_objects(&wanted).map_err(uri.failed("look for the key"))
}

/// The public half: the public object with the private one's id.
fn public_of(session: &Session, uri: &Uri, private: ObjectHandle) -> Result<PublicKey, Error> {
    let missing = || Error::NoPublic { object: uri.object_shown() };
    let read = |object, kind| session.get_attributes(object, &[kind]).map_err(uri.failed("read the public key"));
    let id = read(private, AttributeType::Id)?;
    let mut wanted = vec![Attribute::Class(ObjectClass::PUBLIC_KEY), Attribute::KeyType(KeyType::EC_EDWARDS)];
    wanted.extend(id);
    let found = session.find_objects(&wanted).map_err(uri.failed("look for the key"))?;
    let [public] = found[..] else { return Err(missing()) };
    let point = read(public, AttributeType::EcPoint)?;
    let Some(Attribute::EcPoint(point)) = point.into_iter().next() else { return Err(missing()) };
    // PKCS#11 3.0 wants a DER OCTET STRING; some tokens give the bare 32 bytes.
    let bytes = if let [0x04, 0x20, rest @ ..] = point.as_slice() { rest } else { point.as_slice() };
    Ok(PublicKey::from_bytes(bytes.try_into().map_err(|_| missing())?)?)
}
