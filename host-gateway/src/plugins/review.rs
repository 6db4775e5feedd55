//! Everything again: after the owner's policy or the repository changed, every plugin is
//! admitted anew from its files. Narrower grants hold for the next invocation; what is
//! refused now is inactive at once; invocations of what was revoked with `stop` end.

use std::sync::atomic::Ordering;

use viworks_protocol::frame::PluginOffer;
use viworks_signing::tuf::Action;

use super::{Inner, Shadow, Slot, lock};

impl Inner {
    pub(super) fn review_all(&self) {
        let mut store = lock(&self.store);
        let basis = self.basis();
        self.honour_revocations();
        // It keeps no files to be judged by: it is fetched and judged anew.
        self.drop_shadows(|_| true, |_| true);
        for (id, entry) in store.active() {
            let load = |digest: &Option<String>| {
                let digest = digest.as_deref()?;
                Some((digest.to_owned(), self.load(&store, &id, &entry, digest, &basis)))
            };
            self.place(&id, load(&entry.active), load(&entry.kept));
            // What the repository names now need not be named again.
            let Slot { active, kept } = self.registry.slot(&id);
            for plugin in active.into_iter().chain(kept) {
                let Some(repository) = basis.view.id() else { continue };
                if let Err(error) = store.found_in(&id, plugin.digest(), repository) {
                    tracing::error!(plugin = %id, %error, "the admission was not kept");
                }
            }
        }
    }

    /// End what has to end, and tell what is to be told. Also of releases that are neither
    /// active nor kept, but still run.
    fn honour_revocations(&self) {
        let view = self.repository.view();
        for digest in self.registry.running() {
            let Some(revoked) = view.digest(&digest) else { continue };
            self.metrics.revoked.fetch_add(1, Ordering::Relaxed);
            let (action, reason) = (revoked.action, revoked.reason);
            tracing::warn!(target: "audit", %digest, ?action, %reason, "a release was revoked");
            if action == Action::Stop {
                self.registry.stop(&digest);
            }
        }
    }

    /// Shadows that need not be there any more. What they were compiled to stays where it is
    /// wanted again.
    pub(super) fn drop_shadows(&self, goes: impl Fn(&Shadow) -> bool, again: impl Fn(&str) -> bool) {
        for shadow in self.registry.shadows().into_iter().filter(goes) {
            let (plugin, digest) = (&shadow.release().plugin, shadow.digest());
            self.registry.set_shadow(plugin, None);
            if !again(digest) && !self.registry.slot(plugin).holds(digest) {
                self.cache.remove(digest);
            }
            tracing::info!(target: "audit", %plugin, %digest, "shadow gone");
        }
    }

    pub(super) fn retire_others(&self, offers: &[PluginOffer]) {
        let mut store = lock(&self.store);
        lock(&self.refused).retain(|place, _| offers.iter().any(|offer| super::place(offer) == *place));
        for (id, entry) in store.active() {
            if offers.iter().any(|offer| offer.plugin == id && !offer.shadow) {
                continue;
            }
            if let Err(error) = store.retire(&id) {
                tracing::error!(plugin = %id, %error, "could not retire durably; it stays active");
                continue;
            }
            // An empty slot takes no verb from anybody.
            let _ = self.registry.set(&id, Slot::default());
            entry.digests().for_each(|digest| self.cache.remove(digest));
            tracing::info!(target: "audit", plugin = %id, "plugin retired");
        }
    }

    /// The release before the active one is kept for this: a rollout that halts has it back
    /// at once. It was admitted when it was the newest, so nothing older can come this way.
    pub(super) fn fall_back_to(&self, offers: &[PluginOffer]) {
        let mut store = lock(&self.store);
        for offer in offers.iter().filter(|offer| !offer.shadow) {
            let Slot { active, kept } = self.registry.slot(&offer.plugin);
            let Some(back) = kept.filter(|kept| kept.digest() == offer.digest) else { continue };
            if let Err(error) = self.registry.would_take(&back).map_err(|taken| taken.to_string()) {
                tracing::warn!(target: "audit", plugin = %offer.plugin, %error, "could not fall back");
                continue;
            }
            if let Err(error) = store.fall_back(&offer.plugin) {
                tracing::error!(plugin = %offer.plugin, %error, "could not fall back durably");
                continue;
            }
            let version = back.release().version.to_string();
            if self.registry.set(&offer.plugin, Slot { active: Some(back), kept: active }).is_ok() {
                lock(&self.refused).remove(&super::place(offer));
                tracing::info!(
                    target: "audit", plugin = %offer.plugin, %version, digest = %offer.digest, "plugin active again"
                );
            }
        }
    }
}
