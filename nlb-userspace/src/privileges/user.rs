//! A user of the daemon's own: who that is, what must be theirs, and becoming them.

use std::{fs, io, os::unix::fs::lchown, path::Path};

use nix::unistd::getgrouplist;
use rustix::{
    process::{Gid, Uid, geteuid},
    thread::{
        CapabilitySet, CapabilitySets, capabilities, set_capabilities, set_keep_capabilities,
        set_thread_groups, set_thread_res_gid, set_thread_res_uid,
    },
};

use super::PrivilegesError;

/// A user of this host.
#[derive(Debug)]
pub(super) struct User {
    name: String,
    uid: Uid,
    gid: Gid,
    groups: Vec<Gid>,
}

impl User {
    /// Looks a user up, as the host's name service has it.
    pub(super) fn named(name: &str) -> Result<Self, PrivilegesError> {
        let lookup = |errno: nix::Error| PrivilegesError::Lookup {
            name: name.to_owned(),
            source: errno.into(),
        };
        let user = nix::unistd::User::from_name(name)
            .map_err(lookup)?
            .ok_or_else(|| PrivilegesError::NoUser(name.to_owned()))?;
        let c_name =
            std::ffi::CString::new(name).map_err(|_| PrivilegesError::NoUser(name.to_owned()))?;
        let groups = getgrouplist(&c_name, user.gid).map_err(lookup)?;
        Ok(Self {
            name: name.to_owned(),
            uid: Uid::from_raw(user.uid.as_raw()),
            gid: Gid::from_raw(user.gid.as_raw()),
            groups: (groups.into_iter())
                .map(|group| Gid::from_raw(group.as_raw()))
                .collect(),
        })
    }

    /// Who.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Whether this process is that user already, as when the service manager starts it so.
    fn is_us(&self) -> bool {
        geteuid() == self.uid
    }

    /// Makes a folder, and makes it theirs with the files in it.
    pub(super) fn own_folder(&self, folder: &Path) -> Result<(), PrivilegesError> {
        if self.is_us() {
            return Ok(());
        }
        // What is wrong with a place is told by whoever needs it.
        if fs::create_dir_all(folder).is_err() {
            return Ok(());
        }
        self.own(folder)?;
        let entries = fs::read_dir(folder).map_err(|source| self.not_owned(folder, source))?;
        for entry in entries {
            let entry = entry.map_err(|source| self.not_owned(folder, source))?;
            self.own(&entry.path())?;
        }
        Ok(())
    }

    /// Makes a file or a folder theirs, if it exists. A link is not followed.
    pub(super) fn own(&self, path: &Path) -> Result<(), PrivilegesError> {
        if self.is_us() {
            return Ok(());
        }
        let (uid, gid) = (Some(self.uid.as_raw()), Some(self.gid.as_raw()));
        match lchown(path, uid, gid) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other.map_err(|source| self.not_owned(path, source)),
        }
    }

    fn not_owned(&self, path: &Path, source: io::Error) -> PrivilegesError {
        PrivilegesError::Own {
            user: self.name.clone(),
            path: path.to_owned(),
            source,
        }
    }

    /// Takes the user on for good, with the capabilities that this process has.
    pub(super) fn become_it(&self) -> Result<(), PrivilegesError> {
        if self.is_us() {
            return Ok(());
        }
        self.switch().map_err(|errno| PrivilegesError::Become {
            user: self.name.clone(),
            source: errno.into(),
        })
    }

    fn switch(&self) -> Result<(), rustix::io::Errno> {
        let before = capabilities(None)?;
        set_keep_capabilities(true)?;
        set_thread_groups(&self.groups)?;
        set_thread_res_gid(self.gid, self.gid, self.gid)?;
        set_thread_res_uid(self.uid, self.uid, self.uid)?;
        set_keep_capabilities(false)?;
        // The change of user has cleared the effective ones.
        set_capabilities(
            None,
            CapabilitySets {
                effective: before.permitted,
                permitted: before.permitted,
                inheritable: CapabilitySet::empty(),
            },
        )
    }

    /// Says so if the user cannot get at the pins, before anything else fails on it.
    pub(super) fn require_pins(&self, pins: &Path, bpffs: &Path) -> Result<(), PrivilegesError> {
        match fs::read_dir(pins) {
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                Err(PrivilegesError::Pins {
                    user: self.name.clone(),
                    pins: pins.to_owned(),
                    bpffs: bpffs.to_owned(),
                    source,
                })
            }
            _ => Ok(()),
        }
    }
}
