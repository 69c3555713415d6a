//! The commands that speak to a tenant's hub.

mod agent;
mod audit;
mod context;
mod credentials;
mod dead_letters;
mod exchange;
pub(crate) mod login;
mod mailbox;
mod payload;
mod profile;
mod profiles;
mod program;
mod receive;
mod refusal;
mod reply;
mod scheduled;
mod target;
mod trace;
mod unread;
mod usage;
mod watch;

use self::{refusal::refused, target::Target};
use crate::output::{Failure, Output};

/// The commands that speak to a tenant's hub.
#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Logs in as an agent: keeps its API key with the hub's address as a profile.
    Login(Box<login::Login>),
    /// Forgets a profile and the key in it.
    Logout(login::Logout),
    /// Shows whom the current profile speaks for.
    Whoami(login::Whoami),
    /// Lists the kept profiles, chooses the current one, or removes one.
    Profile(profiles::Profile),
    /// Lists, shows and discovers the agents of the tenant, as its hub knows them.
    Agent(agent::Agent),
    /// Sends a message to an agent, several agents, a group or all.
    Send(exchange::Send),
    /// Sends a query to an agent and waits for its reply.
    Request(exchange::Request),
    /// Answers requests to this agent: with a text, a file, or what a command prints.
    ///
    /// One after another, until it is stopped. Other messages are not acknowledged: they come again, and go to the dead letters after ten
    /// deliveries.
    Reply(reply::Reply),
    /// Takes messages as they come: prints and acknowledges them.
    Receive(receive::Receive),
    /// Shows what is unread in the mailbox, and takes none of it.
    Unread(unread::Unread),
    /// Lists and cancels messages that are sent later: see `acb send --in`.
    Scheduled(scheduled::Scheduled),
    Trace(trace::Trace),
    Usage(usage::Usage),
    /// Lists what agents prove themselves with: which keys and accounts there are, and when each was used last.
    Credentials(credentials::Credentials),
    /// Lists, exports and verifies the audit trail of the tenant. Takes the role auditor or admin.
    Audit(audit::Audit),
    /// Shows messages as they come, or the changes of a context type, and takes nothing: what is shown stays unread.
    Watch(watch::Watch),
    /// Lists, shows, replays and drops messages that nobody took.
    DeadLetters(dead_letters::DeadLetters),
    /// Shares, lists, shows, updates, deletes and transfers contexts.
    Context(context::Contexts),
}

/// Runs one.
pub(crate) async fn run(command: Command, output: Output) -> Result<(), Failure> {
    match command {
        Command::Login(login) => login.run(output).await,
        Command::Logout(logout) => logout.run(output),
        Command::Whoami(whoami) => whoami.run(output).await,
        Command::Profile(profile) => profile.run(output),
        Command::Agent(agent) => agent.run(output).await,
        Command::Send(send) => send.run(output).await,
        Command::Request(request) => request.run(output).await,
        Command::Reply(reply) => reply.run(output).await,
        Command::Receive(receive) => receive.run(output).await,
        Command::Unread(unread) => unread.run(output).await,
        Command::Scheduled(scheduled) => scheduled.run(output).await,
        Command::Trace(trace) => trace.run(output).await,
        Command::Usage(usage) => usage.run(output).await,
        Command::Credentials(credentials) => credentials.run(output).await,
        Command::Audit(audit) => audit.run(output).await,
        Command::Watch(watch) => watch.run(output).await,
        Command::DeadLetters(letters) => letters.run(output).await,
        Command::Context(contexts) => contexts.run(output).await,
    }
}
