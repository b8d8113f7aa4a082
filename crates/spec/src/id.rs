//! Typed ids, each below its tenant and project.
//!
//! An id is the path of names and numbers that leads to the thing: `default/shop-team/shop/v42`. It holds no
//! random part, so that the pure control plane can give ids out and a replay gives the same ones. Numbers are
//! per app and never reused, not even when an app is destroyed and made again under its name, because both
//! lives share one journal stream.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::name::{AppName, InvalidName, ProcessName, ProjectName, TenantName};

/// Why a string is not an id.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidId {
    /// The text has another number of `/` separated segments than this kind of id.
    #[error("{given:?} is not of the form {form}")]
    Form {
        /// What was given, cut to 80 characters.
        given: String,
        /// The form this kind of id has.
        form: &'static str,
    },
    /// A segment is not a name.
    #[error("a segment of the id is not a name")]
    Name(#[from] InvalidName),
}

fn wrong_form(given: &str, form: &'static str) -> InvalidId {
    InvalidId::Form { given: given.chars().take(80).collect(), form }
}

macro_rules! text_form {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(self, f)
            }
        }
        impl TryFrom<String> for $name {
            type Error = InvalidId;
            fn try_from(text: String) -> Result<Self, InvalidId> {
                text.parse()
            }
        }
        impl From<$name> for String {
            fn from(id: $name) -> Self {
                id.to_string()
            }
        }
    )*};
}
text_form!(AppId, InstanceId, ProjectId, ReleaseId, TenantId);

/// A tenant.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct TenantId {
    /// The tenant's name, unique on the platform.
    pub tenant: TenantName,
}

impl fmt::Display for TenantId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.tenant)
    }
}

impl FromStr for TenantId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        Ok(Self { tenant: text.parse()? })
    }
}

/// A project of a tenant: `tenant/project`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProjectId {
    /// The tenant it belongs to.
    pub tenant: TenantName,
    /// Its name, unique within the tenant.
    pub project: ProjectName,
}

impl ProjectId {
    /// The id of an app of this project.
    #[must_use]
    pub fn app(&self, app: AppName) -> AppId {
        AppId { tenant: self.tenant.clone(), project: self.project.clone(), app }
    }
}

impl fmt::Display for ProjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.tenant, self.project)
    }
}

impl FromStr for ProjectId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let segments: Vec<&str> = text.split('/').collect();
        let [tenant, project] = segments[..] else {
            return Err(wrong_form(text, "tenant/project"));
        };
        Ok(Self { tenant: tenant.parse()?, project: project.parse()? })
    }
}

/// An app of a project: `tenant/project/app`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AppId {
    /// The tenant it belongs to.
    pub tenant: TenantName,
    /// The project it belongs to.
    pub project: ProjectName,
    /// Its name, unique within the project.
    pub app: AppName,
}

impl AppId {
    /// The tenant that the app belongs to.
    #[must_use]
    pub fn tenant_id(&self) -> TenantId {
        TenantId { tenant: self.tenant.clone() }
    }

    /// The project that the app belongs to.
    #[must_use]
    pub fn project_id(&self) -> ProjectId {
        ProjectId { tenant: self.tenant.clone(), project: self.project.clone() }
    }

    /// The id of this app's release `number`.
    #[must_use]
    pub fn release(&self, number: ReleaseNumber) -> ReleaseId {
        ReleaseId { app: self.clone(), number }
    }

    /// The id of the instance of `process` that was the `ordinal`-th this app ever had.
    #[must_use]
    pub fn instance(&self, process: ProcessName, ordinal: u64) -> InstanceId {
        InstanceId { app: self.clone(), process, ordinal }
    }
}

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.tenant, self.project, self.app)
    }
}

impl FromStr for AppId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let segments: Vec<&str> = text.split('/').collect();
        let [tenant, project, app] = segments[..] else {
            return Err(wrong_form(text, "tenant/project/app"));
        };
        Ok(Self { tenant: tenant.parse()?, project: project.parse()?, app: app.parse()? })
    }
}

/// A release's number within its app, from 1; given at submit and never reused.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct ReleaseNumber(pub u64);

impl ReleaseNumber {
    /// The number after this one.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Debug for ReleaseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for ReleaseNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "v{}", self.0)
    }
}

impl FromStr for ReleaseNumber {
    type Err = InvalidId;
    /// Takes `v42` and `42`.
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let digits = text.strip_prefix('v').unwrap_or(text);
        let number =
            if digits.bytes().all(|byte| byte.is_ascii_digit()) { digits.parse().ok() } else { None };
        match number {
            Some(number) if number > 0 => Ok(Self(number)),
            _ => Err(wrong_form(text, "v42")),
        }
    }
}

/// A release of an app: `tenant/project/app/v42`. A release has one deployment, so this names that too.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ReleaseId {
    /// The app it is a release of.
    pub app: AppId,
    /// Its number within the app.
    pub number: ReleaseNumber,
}

impl fmt::Display for ReleaseId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.app, self.number)
    }
}

impl FromStr for ReleaseId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        let Some((app, number)) = text.rsplit_once('/') else {
            return Err(wrong_form(text, "tenant/project/app/v42"));
        };
        Ok(Self { app: app.parse()?, number: number.parse()? })
    }
}

/// An instance of an app's process: `tenant/project/app/web.7`. The ordinal counts over all instances that the
/// app ever had, of any process, so it is never reused.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct InstanceId {
    /// The app it runs.
    pub app: AppId,
    /// The process of the app it runs.
    pub process: ProcessName,
    /// Its number within the app, from 1.
    pub ordinal: u64,
}

impl InstanceId {
    /// The id within the app, as people read it and as `INSTANCE_ID` holds it: `web.7`.
    #[must_use]
    pub fn short(&self) -> String {
        format!("{}.{}", self.process, self.ordinal)
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}.{}", self.app, self.process, self.ordinal)
    }
}

impl FromStr for InstanceId {
    type Err = InvalidId;
    fn from_str(text: &str) -> Result<Self, InvalidId> {
        const FORM: &str = "tenant/project/app/process.7";
        let Some((app, (process, ordinal))) =
            text.rsplit_once('/').and_then(|(app, rest)| Some((app, rest.rsplit_once('.')?)))
        else {
            return Err(wrong_form(text, FORM));
        };
        let ordinal = match ordinal.parse() {
            Ok(ordinal) if ordinal > 0 && !ordinal_has_sign(ordinal, text) => ordinal,
            _ => return Err(wrong_form(text, FORM)),
        };
        Ok(Self { app: app.parse()?, process: process.parse()?, ordinal })
    }
}

/// Whether the ordinal was written in a form that would not come back the same: `+7`, `07`.
fn ordinal_has_sign(ordinal: u64, text: &str) -> bool {
    !text.ends_with(&format!(".{ordinal}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_back_from_their_text() {
        let app: AppId = "default/default/shop".parse().unwrap();
        let instance = app.instance("web".parse().unwrap(), 7);
        assert_eq!(instance.to_string(), "default/default/shop/web.7");
        assert_eq!(instance.short(), "web.7");
        assert_eq!(instance.to_string().parse::<InstanceId>().unwrap(), instance);
        let release = app.release(ReleaseNumber(42));
        assert_eq!(release.to_string().parse::<ReleaseId>().unwrap(), release);
        assert_eq!("42".parse::<ReleaseNumber>().unwrap(), ReleaseNumber(42));
    }

    #[test]
    fn what_is_not_an_id_is_refused() {
        for bad in ["", "a", "a/b", "a/b/c/d", "a//c", "../b/c", "a/b/c ", "/a/b/c"] {
            assert!(bad.parse::<AppId>().is_err(), "{bad:?}");
        }
        for bad in ["a/b/c/web", "a/b/c/web.0", "a/b/c/web.07", "a/b/c/web.+7", "a/b/c/web.7.7", "a/b/c/.7"] {
            assert!(bad.parse::<InstanceId>().is_err(), "{bad:?}");
        }
        for bad in ["v", "v0", "-1", "v+1", "1.5", "vv1"] {
            assert!(bad.parse::<ReleaseNumber>().is_err(), "{bad:?}");
        }
    }
}
