"""The Python client of an ACB hub: messages, contexts, streams and agents of one tenant, over whichever replica answers.

```python
async with acb.connect() as agent:
    await agent.send("worker-a", "hello", topic="greeting")
```

Start at `connect`. Reconnecting, trying again and renewing tokens is done here; what callers see is one `Error`. `acb.sync` is the same without
`await`, for notebooks and scripts. What is done here is logged by the logger `acb`.
"""

from ._agents import Registered
from ._client import Client, connect
from ._correlation import correlated, correlation_id
from ._credential import ApiKey, Identity, Tokens
from ._dead_letters import Letters, WhichLetters
from ._error import (
    Code,
    Damaged,
    Error,
    LocalError,
    PayloadError,
    Refused,
    TimedOut,
    Unavailable,
    Untrusted,
    UsageError,
)
from ._mailbox import Pulled, Puller, UnreadCount, UnreadMessages
from ._message import FAILURE, Message, MessageFields, Received, View
from ._payload import JSON
from ._records import AuditFollower, UsageQuery, audit_record
from ._session import Receipt, Session
from ._subscription import Since, Subscription
from ._telemetry import traced
from ._transfers import Downloaded, Progress, Resumption, Uploaded
from ._types import (
    Address,
    Agent,
    AgentCredential,
    AgentStatus,
    AuditCheckpoint,
    AuditPhase,
    AuditRecord,
    Context,
    ContextEvent,
    CredentialKind,
    DeadLetter,
    DeadLetterFailure,
    DeadLetterOutcome,
    DeadLetterReason,
    DeadLetterState,
    EventKind,
    LoggedAuditRecord,
    MessageTrace,
    MessageType,
    PayloadRef,
    Position,
    Scheduled,
    ScheduledMessage,
    Scope,
    ScopeKind,
    Sent,
    StreamProgress,
    TraceEvent,
    TraceKind,
    TraceRecipient,
    Usage,
    UsageGap,
    UsagePeriod,
    UsageSum,
)

__version__ = "0.1.0"

__all__ = [
    "FAILURE",
    "JSON",
    "Address",
    "Agent",
    "AgentCredential",
    "AgentStatus",
    "ApiKey",
    "AuditCheckpoint",
    "AuditFollower",
    "AuditPhase",
    "AuditRecord",
    "Client",
    "Code",
    "Context",
    "ContextEvent",
    "CredentialKind",
    "Damaged",
    "DeadLetter",
    "DeadLetterFailure",
    "DeadLetterOutcome",
    "DeadLetterReason",
    "DeadLetterState",
    "Downloaded",
    "Error",
    "EventKind",
    "Identity",
    "Letters",
    "LocalError",
    "LoggedAuditRecord",
    "Message",
    "MessageFields",
    "MessageTrace",
    "MessageType",
    "PayloadError",
    "PayloadRef",
    "Position",
    "Progress",
    "Pulled",
    "Puller",
    "Receipt",
    "Received",
    "Refused",
    "Registered",
    "Resumption",
    "Scheduled",
    "ScheduledMessage",
    "Scope",
    "ScopeKind",
    "Sent",
    "Session",
    "Since",
    "StreamProgress",
    "Subscription",
    "TimedOut",
    "Tokens",
    "TraceEvent",
    "TraceKind",
    "TraceRecipient",
    "Unavailable",
    "UnreadCount",
    "UnreadMessages",
    "Untrusted",
    "Uploaded",
    "Usage",
    "UsageError",
    "UsageGap",
    "UsagePeriod",
    "UsageQuery",
    "UsageSum",
    "View",
    "WhichLetters",
    "audit_record",
    "connect",
    "correlated",
    "correlation_id",
    "traced",
]
