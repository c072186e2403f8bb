//! Errors of the command line: a stable code for programs, and a sentence that says what to do.

use tonic::Status;

/// The stable name of a kind of error, as `--json` prints it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Code {
    /// Flags or their values; mend the command.
    Usage,
    /// No coordinator was named and none runs here.
    NoCoordinator,
    /// Several coordinators run here; name one.
    ManyCoordinators,
    /// No worker runs with that data directory.
    NoWorker,
    /// A worker runs with that data directory already.
    AlreadyRuns,
    /// The coordinator or worker does not answer; a retry may help.
    Unreachable,
    /// The coordinator does not let this key do that.
    Denied,
    /// There is no such job, task or peer.
    NotFound,
    /// The coordinator refused the request; mend it.
    Refused,
    /// The module breaks rules of the profile.
    BundleRefused,
    /// A limit; the message names it.
    Limit,
    /// A file or directory.
    Io,
    /// The user interrupted the command.
    Interrupted,
    /// Anything else.
    Internal,
}

impl Code {
    /// Its text in JSON.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Usage => "usage",
            Self::NoCoordinator => "no-coordinator",
            Self::ManyCoordinators => "many-coordinators",
            Self::NoWorker => "no-worker",
            Self::AlreadyRuns => "already-runs",
            Self::Unreachable => "unreachable",
            Self::Denied => "denied",
            Self::NotFound => "not-found",
            Self::Refused => "refused",
            Self::BundleRefused => "bundle-refused",
            Self::Limit => "limit",
            Self::Io => "io",
            Self::Interrupted => "interrupted",
            Self::Internal => "internal",
        }
    }
}

/// An error with a code.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub(crate) struct Failure {
    code: Code,
    message: String,
}

impl Failure {
    pub(crate) fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }

    pub(crate) fn code(&self) -> Code {
        self.code
    }

    /// The flags are wrong; `problems` is never empty.
    pub(crate) fn usage(problems: &[String]) -> Self {
        Self::new(Code::Usage, list("the command is not usable", problems))
    }

    /// The code of an error, wherever in its chain it was given.
    pub(crate) fn code_of(error: &anyhow::Error) -> Code {
        for cause in error.chain() {
            if let Some(failure) = cause.downcast_ref::<Self>() {
                return failure.code;
            }
            if cause.is::<std::io::Error>() {
                return Code::Io;
            }
        }
        Code::Internal
    }
}

/// `title: problem`, or the title and one line per problem when there are several.
pub(crate) fn list(title: &str, problems: &[String]) -> String {
    match problems {
        [one] => format!("{title}: {one}"),
        many => format!("{title}:\n  - {}", many.join("\n  - ")),
    }
}

impl From<Status> for Failure {
    /// What the coordinator answered, without gRPC's own words.
    fn from(status: Status) -> Self {
        use tonic::Code as Grpc;
        let code = match status.code() {
            Grpc::NotFound => Code::NotFound,
            Grpc::Unauthenticated | Grpc::PermissionDenied => Code::Denied,
            Grpc::InvalidArgument | Grpc::FailedPrecondition | Grpc::OutOfRange | Grpc::Unimplemented => {
                Code::Refused
            }
            Grpc::ResourceExhausted => Code::Limit,
            _ if is_transient(&status) => Code::Unreachable,
            _ => Code::Internal,
        };
        let text = crate::output::printable(status.message());
        let message = match code {
            Code::Denied => {
                format!("the coordinator refused this key: {text}; use the ticket that its owner gave you")
            }
            Code::Unreachable => format!(
                "the coordinator does not answer: {text}; check that it runs and that the ticket is its \
                 current one (talka coordinator ticket)"
            ),
            _ if text.is_empty() => format!("the coordinator answered: {:?}", status.code()),
            _ => text,
        };
        Self { code, message }
    }
}

/// Whether the same request may well succeed in a moment: the connection broke or the coordinator restarts.
pub(crate) fn is_transient(status: &Status) -> bool {
    use tonic::Code as Grpc;
    matches!(
        status.code(),
        Grpc::Unavailable
            | Grpc::Unknown
            | Grpc::Cancelled
            | Grpc::DeadlineExceeded
            | Grpc::Aborted
            | Grpc::Internal
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_becomes_a_code_and_a_remedy() {
        let check = |status: Status, code: &str, part: &str| {
            let error = anyhow::Error::from(Failure::from(status));
            assert_eq!(Failure::code_of(&error).name(), code);
            assert!(error.to_string().contains(part), "{error}");
        };
        check(Status::not_found("no job 7"), "not-found", "no job 7");
        check(Status::permission_denied("wrong token"), "denied", "ticket");
        check(Status::unavailable("connection refused"), "unreachable", "talka coordinator ticket");
        check(Status::invalid_argument("name: empty"), "refused", "name: empty");
    }

    #[test]
    fn several_problems_are_listed_one_per_line() {
        let problems = ["--quorum: 0".to_owned(), "--array: x".to_owned()];
        let message = Failure::usage(&problems).to_string();
        assert!(message.ends_with(":\n  - --quorum: 0\n  - --array: x"), "{message}");
    }
}
