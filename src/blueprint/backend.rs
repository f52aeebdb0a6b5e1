//! The backend Secret: who may log in, and the admin user by whom the image's own scripts do
//! (docs/kubedb-compatibility.md, "Users").

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt;

use super::inputs::{Credentials, Inputs, Surroundings};
use super::{metadata, names};
pub use crate::pgbouncer::userlist::UserlistError;
use crate::pgbouncer::userlist::{Purpose, Stored, Userlist};

/// The user whose name or password the userlist cannot hold.
pub(super) type Whose = &'static str;

/// The userlist: synced users, the backend's superuser, the admin user. The later win, so that
/// nobody takes the admin's place by a label. A synced user that the file cannot hold is left out:
/// it is somebody else's mistake and must not stop the others.
pub(super) fn userlist(
    around: &Surroundings,
    admin: &Credentials,
    auth_type: &str,
) -> Result<Userlist, (Whose, UserlistError)> {
    let stored = |purpose, user: &Credentials| {
        Stored::choose(purpose, auth_type, &user.username, &user.password)
    };
    let mut list = Userlist::new();
    for user in &around.users {
        let _left_out = list.insert(&user.username, stored(Purpose::Backend, user));
    }
    let superuser = &around.backend.superuser;
    // Somebody may run PostgreSQL with a superuser of the admin's name: then the entry serves both.
    let purpose = if superuser.username == admin.username {
        Purpose::Backend
    } else {
        Purpose::Console
    };
    list.insert(&admin.username, stored(purpose, admin))
        .map_err(|error| ("the admin user of the auth Secret", error))?;
    list.insert(&superuser.username, stored(Purpose::Backend, superuser))
        .map_err(|error| ("the superuser of spec.secret of the AppBinding", error))?;
    list.read_back()
        .map_err(|error| ("the users of the userlist", error))?;
    Ok(list)
}

/// The Secret.
pub(super) fn secret(inputs: &Inputs) -> Secret {
    let bytes = |text: &str| ByteString(text.as_bytes().to_vec());
    let data = [
        (
            names::USERLIST_KEY,
            bytes(inputs.userlist.render().expose()),
        ),
        ("username", bytes(&inputs.admin.username)),
        ("password", bytes(inputs.admin.password.expose())),
    ];
    Secret {
        metadata: metadata(
            &inputs.bouncer,
            names::backend_secret(&inputs.bouncer.name_any()),
        ),
        type_: Some("Opaque".to_owned()),
        data: Some(
            data.into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        ),
        ..Secret::default()
    }
}
