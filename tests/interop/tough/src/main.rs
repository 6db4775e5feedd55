//! `viworks-interop-tough DIR ROOT`: loads the repository in DIR, trusting the file ROOT,
//! and reads every target. Prints their names; ends with 1 if tough refuses.

use futures_util::TryStreamExt as _;
use std::error::Error;
use std::path::Path;
use tough::{FilesystemTransport, RepositoryLoader};
use url::Url;

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(dir), Some(root)) = (arguments.next(), arguments.next()) else {
        return Err("usage: viworks-interop-tough DIR ROOT".into());
    };
    let dir = Path::new(&dir).canonicalize()?;
    let folder = |name: &str| Url::from_directory_path(dir.join(name)).map_err(|()| "no such folder");
    let root = std::fs::read(root)?;
    let loader = RepositoryLoader::new(&root, folder("metadata")?, folder("targets")?);
    let repository = loader.transport(FilesystemTransport).load().await?;
    for (name, target) in repository.all_targets() {
        let stream = repository.read_target(name).await?.ok_or("a target without a file")?;
        let read: u64 = stream.try_fold(0, |sum, bytes| async move { Ok(sum + bytes.len() as u64) }).await?;
        if read != target.length {
            return Err(format!("{} has {read} bytes", name.raw()).into());
        }
        println!("{}", name.raw());
    }
    Ok(())
}
