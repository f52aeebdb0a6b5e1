//! Who may log in to the pooler, and what the pooler logs in to PostgreSQL with
//! (docs/kubedb-compatibility.md, "Users").

use super::around::{Credentials, Surroundings};
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
