//! The world of the commit model: a broker and two instances with one worker each, for one task.

use tidegate::ids::{Epoch, TaskId};
use tidegate::invariants::{Handle, Invariant, disk_is_committed_prefix, outputs_visible_iff_committed};

use crate::checking::Broken;

/// Input records of the task, at most.
pub const MOST_INPUTS: usize = 2;

/// Commands on their way from the member loop to the worker, at most.
pub const QUEUE: usize = 2;

/// The task.
pub const TASK: TaskId = TaskId {
    sub_topology: 0,
    partition: 0,
};

/// What members are called; a model knows them by number.
const MEMBER_IDS: [&str; 5] = ["", "a", "b", "c", "d"];

/// Generation and member id. Generation 0 stands for -1, member 0 for none. Only equality counts, so both are numbered
/// anew after each step: 1 is the group's generation, 1 and 2 are its members. By that an endless number of rebalances has a
/// finite number of states.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Hash)]
pub struct Metadata {
    /// The generation.
    pub generation: u8,
    /// The member id.
    pub member: u8,
}

impl Metadata {
    /// The same as the invariants name it.
    pub fn handle(self) -> Handle<'static> {
        Handle {
            generation: i32::from(self.generation) - 1,
            member_id: MEMBER_IDS[usize::from(self.member)],
        }
    }

    /// Whether a broker fences it.
    pub fn is_fencing(self) -> bool {
        self.generation > 0 && self.member > 0
    }
}

/// Offsets and pointer of the task: they are one record of the group, and committed together.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Hash)]
pub struct Committed {
    /// The epoch that the pointer names.
    pub epoch: u8,
    /// The offset of the next input.
    pub cut: u8,
}

/// The open transaction of one instance's producer.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Hash)]
pub struct Transaction {
    /// Whether anything was sent.
    pub open: bool,
    /// Outputs, a bit per input.
    pub outputs: u8,
    /// Pending offsets.
    pub offsets: Option<Committed>,
}

/// Group coordinator, transaction coordinator and topics.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Hash)]
pub struct Broker {
    /// The group's generation.
    pub generation: u8,
    /// The member of each instance; 0: none.
    pub members: [u8; 2],
    /// Whose client has the task. It stays with a client that is to give it up until that has done so.
    pub assigned: Option<u8>,
    /// What the group has committed for the task.
    pub committed: Committed,
    /// How often the output of each input is visible; 2 stands for more than once.
    pub visible: [u8; MOST_INPUTS],
    /// The transaction of each instance's transactional id.
    pub transactions: [Transaction; 2],
}

/// What the client reports to the engine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// The task is given, or only the generation moved.
    Assigned(bool),
    /// The task is to be given up.
    Revoked,
    /// The task may be somebody else's already.
    Lost,
    /// Another process has this static identity.
    Fenced,
}

/// What the member loop tells the worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Command {
    /// Take the task.
    Assign(Metadata),
    /// End the epoch and close the task; whether the member waits for it.
    Revoke(Metadata, bool),
    /// Drop the epoch and close the task; whether the member waits for it.
    Lose(Metadata, bool),
    /// An event was served that takes nothing from this worker.
    Served(Metadata),
}

/// Where the member loop is.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// Between events.
    #[default]
    Idle,
    /// The event is completed; the metadata is read next and told to the worker, with the task if it was given.
    Telling(bool),
    /// The worker closes the task; whether it has not done so yet.
    Closing(bool),
}

/// The task in a worker.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// Not here.
    #[default]
    Closed,
    /// To be opened at the committed cut; at `Some` other one where the rule is off that says so.
    Waiting(Option<Committed>),
    /// Processing.
    Running(Run),
}

/// A task that processes records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Run {
    /// The last epoch whose end is confirmed.
    pub confirmed: Committed,
    /// The cut of the epoch whose commit runs.
    pub sealed: Option<u8>,
    /// The next input.
    pub position: u8,
    /// Outputs up to here are with the producer.
    pub sent: u8,
}

/// The producer as the broker and the worker see it.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Hash)]
pub enum Writer {
    /// To be made and initialised.
    #[default]
    Broken,
    /// Initialised.
    Ready,
    /// The broker has ended its transaction; the worker learns it when it commits.
    Fenced,
}

/// Where a commit is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Step {
    /// The request with the offsets is under way.
    Offsets,
    /// The request to end the transaction is under way.
    End,
    /// The outcome is there for the worker.
    Answered(Outcome),
}

/// How a commit ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// It is committed.
    Committed,
    /// The broker refused the metadata; the transaction must be aborted.
    Refused,
    /// The producer is fenced.
    Fenced,
}

/// A commit under way: it has a thread of its own, which may outlive the worker's patience.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Commit {
    /// Where it is.
    pub step: Step,
    /// In whose name.
    pub metadata: Metadata,
    /// What it commits.
    pub offsets: Committed,
    /// Whether nobody waits for it any more.
    pub abandoned: bool,
}

/// A process: the client with its own thread, the member loop, one worker, and the disk that survives them.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Hash)]
pub struct Instance {
    /// The client's metadata.
    pub view: Metadata,
    /// Whether the client waits for its first generation.
    pub joining: bool,
    /// Reported and not completed.
    pub event: Option<Event>,
    /// Whether the client has the task.
    pub holds: bool,
    /// The member loop.
    pub phase: Phase,
    /// On their way to the worker.
    pub commands: [Option<Command>; QUEUE],
    /// The worker's metadata: that of the last served event.
    pub captured: Metadata,
    /// A revocation under way; whether the member waits for it.
    pub ending: Option<bool>,
    /// The task.
    pub stage: Stage,
    /// The producer.
    pub writer: Writer,
    /// The commit under way.
    pub commit: Option<Commit>,
    /// The epoch on disk.
    pub disk: u8,
}

/// All of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The broker.
    pub broker: Broker,
    /// The processes.
    pub instances: [Instance; 2],
    /// Faults that may still happen.
    pub faults: u8,
    /// Invariants that a step broke.
    pub broken: Broken,
}

impl State {
    /// Nobody has joined, nothing is committed.
    pub fn new(faults: u8) -> Self {
        Self {
            broker: Broker::default(),
            instances: [Instance::default(); 2],
            faults,
            broken: Broken::default(),
        }
    }

    /// Whether all inputs are committed and no transaction is open.
    pub(super) fn is_finished(&self, inputs: u8) -> bool {
        self.broker.committed.cut == inputs && self.broker.transactions == [Transaction::default(); 2]
    }

    /// Whether it is finished and nobody has anything of the past in hand: what follows are rebalances without work.
    pub(super) fn has_settled(&self, inputs: u8) -> bool {
        let has_settled = |instance: &Instance| match instance.stage {
            Stage::Running(run) => run.position == run.confirmed.cut && run.confirmed == self.broker.committed,
            Stage::Waiting(reopens_at) => reopens_at.is_none(),
            Stage::Closed => true,
        };
        let mut instances = self.instances.iter();
        self.is_finished(inputs) && instances.all(|instance| has_settled(instance) && instance.commit.is_none())
    }

    /// Whether each input before the committed cut shows once, and none behind it.
    pub fn counts_exactly_once(&self) -> bool {
        (0..MOST_INPUTS as u8).all(|input| {
            let expected = u8::from(input < self.broker.committed.cut);
            self.broker.visible[usize::from(input)] == expected
        })
    }

    /// Whether `invariant` holds, of those that a state shows and those that steps noted.
    pub fn keeps(&self, invariant: Invariant) -> bool {
        let committed = self.broker.committed;
        let shown = match invariant {
            Invariant::I1 => (0..MOST_INPUTS as u8).all(|input| {
                let visible = self.broker.visible[usize::from(input)] > 0;
                let is_committed = input < committed.cut;
                let epoch = Epoch(u64::from(committed.epoch));
                outputs_visible_iff_committed(epoch, visible, is_committed, is_committed).is_ok()
            }),
            Invariant::I9 => self.instances.iter().all(|instance| {
                let (disk, committed) = (u64::from(instance.disk), u64::from(committed.epoch));
                disk_is_committed_prefix(Epoch(disk), Epoch(committed)).is_ok()
            }),
            _ => true,
        };
        shown && self.broken.keeps(invariant)
    }
}
