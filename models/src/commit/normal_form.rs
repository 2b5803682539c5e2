//! One form for states that behave alike: without it a group that rebalances for ever has states without end.

use super::state::{Command, Event, Instance, Metadata, Phase, QUEUE, Stage, State, Writer};

impl Instance {
    /// A command that says what the one before it said changes nothing.
    fn drop_repetitions(&mut self) {
        for at in 1..QUEUE {
            let repeats = matches!(self.commands[at], Some(Command::Served(_)));
            if repeats && self.commands[at] == self.commands[at - 1] {
                self.commands[at] = None;
                self.commands[at..].rotate_left(1);
            }
        }
    }

    fn forget_what_is_idle(&mut self, has_transaction: bool) {
        if self.stage != Stage::Closed || self.ending.is_some() {
            return;
        }
        while let Some(Command::Served(_)) = self.commands[0] {
            self.commands[0] = None;
            self.commands.rotate_left(1);
        }
        self.captured = Metadata::default();
        self.disk = 0;
        if self.commit.is_none() && !has_transaction {
            self.writer = Writer::Broken;
        }
        if self.commands[0].is_none() {
            if self.phase == Phase::Telling(false) {
                self.phase = Phase::Idle;
            }
            if self.phase == Phase::Idle && self.event == Some(Event::Assigned(false)) {
                self.event = None;
            }
        }
    }
}

impl State {
    /// Gives states that behave alike one form. An instance without the task has nothing to serve, its producer can as well be
    /// made when it gets one, and its disk is looked at when it opens one.
    pub(super) fn normalise(&mut self) {
        for (instance, transaction) in self.instances.iter_mut().zip(&self.broker.transactions) {
            instance.forget_what_is_idle(transaction.open);
        }
        self.renumber();
    }

    /// Numbers generations and member ids anew. Only whether they are the group's or the client's present ones counts.
    fn renumber(&mut self) {
        let broker = self.broker;
        for instance in &mut self.instances {
            let view = instance.view;
            let both = |metadata: &mut Metadata| {
                metadata.generation = match metadata.generation {
                    0 => 0,
                    generation if generation == broker.generation => 1,
                    generation if generation == view.generation => 2,
                    _ => 3,
                };
                metadata.member = match metadata.member {
                    0 => 0,
                    member if member == broker.members[0] => 1,
                    member if member == broker.members[1] => 2,
                    member if member == view.member => 3,
                    _ => 4,
                };
            };
            both(&mut instance.view);
            both(&mut instance.captured);
            for command in instance.commands.iter_mut().flatten() {
                match command {
                    Command::Assign(metadata)
                    | Command::Revoke(metadata, _)
                    | Command::Lose(metadata, _)
                    | Command::Served(metadata) => both(metadata),
                }
            }
            if let Some(commit) = &mut instance.commit {
                both(&mut commit.metadata);
            }
            instance.drop_repetitions();
        }
        self.broker.generation = self.broker.generation.min(1);
        for (member, number) in self.broker.members.iter_mut().zip(1..) {
            *member = if *member == 0 { 0 } else { number };
        }
    }
}
