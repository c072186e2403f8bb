//! `talka credit …`.

mod days;
mod export;
mod list;
mod prove;
mod statistics;
mod verify;

use std::process::ExitCode;

pub(crate) use export::signed_head as credit_head;

use clap::Subcommand;

use crate::output::Out;

/// Commands about credit: 1 credit is 10⁹ fuel that a quorum agreed on.
#[derive(Debug, Subcommand)]
pub(crate) enum CreditCommand {
    /// List what each peer, owner or team earned, most first.
    #[command(after_help = "Examples:\n  talka credit list --json | jq 'map(.credit) | add'\n  \
        talka credit list --by team\n\n\
        The recent average is in credits per day; work counts half after seven days, as at BOINC.")]
    List(list::ListFlags),
    /// Show what was earned on each of the last days.
    #[command(after_help = "Example:\n  talka credit days --days 7\n\n\
        Days are in UTC. What was revoked counts on the day on which it was.")]
    Days(days::DaysFlags),
    /// Save the whole ledger, so that anybody can verify it.
    #[command(after_help = "Example:\n  talka credit export ledger.tlk\n\n\
        The file holds every entry and the coordinator's signature. It can be checked without the coordinator:\n  \
        talka credit verify ledger.tlk")]
    Export(export::ExportFlags),
    /// Recompute every total from an exported ledger, and name the first entry that does not fit.
    #[command(after_help = "Examples:\n  talka credit verify ledger.tlk\n  \
        talka credit verify today.tlk --since yesterday.tlk --key KEY\n\n\
        Needs nothing but the file. With --json: {\"ok\", \"entries\", \"head\", \"first_bad\", ...}; first_bad is the place\n\
        of an entry, from 0, or null when what is wrong is none of them.\n\
        Exit code: 0 when all of it fits, 1 when not.")]
    Verify(verify::VerifyFlags),
    /// Have the coordinator prove that its ledger still begins with one that was exported earlier, without fetching it.
    #[command(after_help = "Example:\n  talka credit prove yesterday.tlk\n\n\
        Costs some hundred bytes, however long the ledger is. With --json: {\"ok\", \"old_entries\", \"entries\", \"head\",\n\
        \"proof\"}. Exit code: 0 when it is proved, 1 when not.")]
    Prove(prove::ProveFlags),
    /// Write credit as XML files for statistics sites, as BOINC projects do.
    #[command(
        name = "export-xml",
        after_help = "Example:\n  talka credit export-xml /var/www/stats\n\n\
        tables.xml, host.xml, user.xml and team.xml; docs/statistics.md describes them."
    )]
    ExportXml(statistics::StatisticsFlags),
}

impl CreditCommand {
    pub(crate) async fn run(self, out: Out) -> anyhow::Result<ExitCode> {
        match self {
            Self::List(flags) => flags.run(out).await,
            Self::Days(flags) => flags.run(out).await,
            Self::Export(flags) => flags.run(out).await,
            Self::Verify(flags) => flags.run(out).await,
            Self::Prove(flags) => flags.run(out).await,
            Self::ExportXml(flags) => flags.run(out).await,
        }
    }
}
