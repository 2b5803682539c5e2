//! Runs of the checker: over the whole state space, or until a violation is found.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::{BuildHasherDefault, Hash, Hasher};

use stateright::{Checker, HasDiscoveries, Model, Property};
use tidegate::invariants::{Invariant, Violation};

/// A model of a protocol: what the checker needs, and what makes a run of it meaningful.
pub trait Protocol: Model<State: Clone + Debug + Hash + PartialEq + Send + Sync> {
    /// The name of an action's kind. All kinds must occur in a run of the full protocol.
    fn kind(action: &Self::Action) -> &'static str;

    /// Whether everything that was to be done is done.
    fn is_finished(&self, state: &Self::State) -> bool;
}

/// The invariants that a step broke, kept in the state so that a property can name them.
#[derive(Clone, Copy, Default, Debug, PartialEq, Eq, Hash)]
pub struct Broken(u16);

impl Broken {
    /// Notes what a predicate answers.
    pub fn note(&mut self, outcome: Result<(), Violation>) {
        if let Err(violation) = outcome {
            self.0 |= 1 << violation.invariant.number();
        }
    }

    /// Whether no step broke `invariant`.
    pub fn keeps(self, invariant: Invariant) -> bool {
        self.0 & (1 << invariant.number()) == 0
    }
}

/// What a run over the whole state space came to.
#[derive(Debug)]
pub struct Figures {
    /// Unique states.
    pub states: usize,
    /// Steps to the state that is farthest from the beginning.
    pub depth: usize,
    /// How often each kind of action occurs.
    pub kinds: BTreeMap<&'static str, usize>,
    /// Kinds of the steps into the nearest state from which the end can no longer be reached; `None` if there is none.
    pub dead_end: Option<Vec<&'static str>>,
}

/// Checks every reachable state of a model, and that what its `sometimes` properties name is among them.
///
/// # Errors
/// A property that does not hold, with a counterexample, or something that should be possible and is not.
pub fn check_everything<M>(make: impl Fn() -> M) -> Result<Figures, String>
where
    M: Protocol + Send + Sync + 'static,
    M::State: 'static,
    M::Action: Clone + Debug + PartialEq,
{
    let checker = make()
        .checker()
        .finish_when(HasDiscoveries::AnyFailures)
        .spawn_bfs()
        .join();
    let mut discoveries = checker.discoveries();
    for property in make().properties() {
        let name = property.name;
        match (property.expectation.discovery_is_failure(), discoveries.remove(name)) {
            (true, Some(path)) => {
                let actions = path.into_actions();
                return Err(format!("{name}: violated after {} steps\n{actions:#?}", actions.len()));
            }
            (false, None) => return Err(format!("it never happens that {name}")),
            (true, None) | (false, Some(_)) => {}
        }
    }
    let figures = walk(&make());
    assert_eq!(
        checker.unique_state_count(),
        figures.states,
        "both walks see the same states"
    );
    Ok(figures)
}

/// One property of a model. With several, stateright 0.31 replaces the first counterexample by later and longer ones.
struct Single<M: Protocol> {
    model: M,
    property: Property<M>,
}

impl<M: Protocol> Model for Single<M> {
    type State = M::State;
    type Action = M::Action;

    fn init_states(&self) -> Vec<M::State> {
        self.model.init_states()
    }

    fn actions(&self, state: &M::State, actions: &mut Vec<M::Action>) {
        self.model.actions(state, actions);
    }

    fn next_state(&self, last: &M::State, action: M::Action) -> Option<M::State> {
        self.model.next_state(last, action)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        let condition = |single: &Self, state: &M::State| (single.property.condition)(&single.model, state);
        vec![Property::always(self.property.name, condition)]
    }
}

/// The steps of the shortest counterexample of one property.
///
/// # Errors
/// That the property holds in all states.
pub fn find_violation<M>(model: M, name: &'static str) -> Result<Vec<String>, String>
where
    M: Protocol + Send + Sync + 'static,
    M::State: 'static,
    M::Action: Clone + Debug + PartialEq + 'static,
{
    let property = model.property(name);
    let checker = Single { model, property }.checker().spawn_bfs().join();
    let states = checker.unique_state_count();
    let path = checker
        .discovery(name)
        .ok_or_else(|| format!("{name:?} holds in all {states} states"))?;
    let actions = path.into_actions();
    Ok(actions.iter().map(|action| format!("{action:?}")).collect())
}

/// How a state was reached first.
struct Seen {
    depth: u32,
    from: Option<(u32, &'static str)>,
    is_finished: bool,
}

/// Fingerprints are hashes already.
#[derive(Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = bytes
            .iter()
            .fold(self.0, |hash, byte| hash.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, fingerprint: u64) {
        self.0 = fingerprint;
    }
}

fn fingerprint<S: Hash>(state: &S) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Walks over all states, which the checker does too; but a checker of invariants does not say from where the end can be
/// reached, and that is what "no wait without end" means in a protocol that may try again for ever.
fn walk<M: Protocol>(model: &M) -> Figures {
    let mut numbers: HashMap<u64, u32, BuildHasherDefault<AsItIs>> = HashMap::default();
    let mut seen: Vec<Seen> = Vec::new();
    let mut edges: Vec<(u32, u32)> = Vec::new();
    let mut kinds = BTreeMap::new();
    let mut frontier: Vec<(u32, M::State)> = Vec::new();
    for state in model.init_states() {
        let number = seen.len() as u32;
        numbers.insert(fingerprint(&state), number);
        seen.push(Seen {
            depth: 0,
            from: None,
            is_finished: model.is_finished(&state),
        });
        frontier.push((number, state));
    }
    let mut actions = Vec::new();
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for (at, state) in frontier {
            model.actions(&state, &mut actions);
            for action in actions.drain(..) {
                let kind = M::kind(&action);
                let Some(reached) = model.next_state(&state, action) else {
                    continue;
                };
                *kinds.entry(kind).or_insert(0) += 1;
                let to = match numbers.entry(fingerprint(&reached)) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(place) => {
                        let to = *place.insert(seen.len() as u32);
                        seen.push(Seen {
                            depth: seen[at as usize].depth + 1,
                            from: Some((at, kind)),
                            is_finished: model.is_finished(&reached),
                        });
                        next.push((to, reached));
                        to
                    }
                };
                edges.push((at, to));
            }
        }
        frontier = next;
    }
    Figures {
        states: seen.len(),
        depth: seen.iter().map(|seen| seen.depth as usize).max().unwrap_or(0),
        kinds,
        dead_end: dead_end(&seen, edges),
    }
}

/// The shortest way to a state from which no finished state can be reached.
fn dead_end(seen: &[Seen], mut edges: Vec<(u32, u32)>) -> Option<Vec<&'static str>> {
    edges.sort_unstable_by_key(|(_, to)| *to);
    let into = |to: u32| {
        let first = edges.partition_point(|(_, other)| *other < to);
        edges[first..].iter().take_while(move |(_, other)| *other == to)
    };
    let mut reaches: Vec<bool> = seen.iter().map(|seen| seen.is_finished).collect();
    let mut open: Vec<u32> = (0..seen.len() as u32).filter(|at| reaches[*at as usize]).collect();
    while let Some(at) = open.pop() {
        for (before, _) in into(at) {
            if !std::mem::replace(&mut reaches[*before as usize], true) {
                open.push(*before);
            }
        }
    }
    // States are numbered in the order of their distance from the beginning.
    let mut at = reaches.iter().position(|reaches| !reaches)?;
    let mut steps = Vec::new();
    while let Some((before, kind)) = seen[at].from {
        steps.push(kind);
        at = before as usize;
    }
    steps.reverse();
    Some(steps)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Steps by one or two up to three, where two is a trap.
    struct Stairs;

    impl Model for Stairs {
        type State = u8;
        type Action = u8;

        fn init_states(&self) -> Vec<u8> {
            vec![0]
        }

        fn actions(&self, state: &u8, actions: &mut Vec<u8>) {
            match state {
                0 => actions.extend([1, 2]),
                1 => actions.push(2),
                _ => {}
            }
        }

        fn next_state(&self, last: &u8, action: u8) -> Option<u8> {
            Some(last + action)
        }

        fn properties(&self) -> Vec<Property<Self>> {
            vec![Property::always("below three", |_, state: &u8| *state < 3)]
        }
    }

    impl Protocol for Stairs {
        fn kind(action: &u8) -> &'static str {
            if *action == 1 { "one" } else { "two" }
        }

        fn is_finished(&self, state: &u8) -> bool {
            *state == 3
        }
    }

    #[test]
    fn a_violation_is_found_by_the_shortest_way() {
        assert_eq!(
            find_violation(Stairs, "below three"),
            Ok(vec!["1".to_owned(), "2".to_owned()])
        );
        let refused = check_everything(|| Stairs).expect_err("three is reached");
        assert!(refused.contains("below three"), "{refused}");
    }

    #[test]
    fn a_state_from_which_the_end_cannot_be_reached_is_a_dead_end() {
        let figures = walk(&Stairs);
        assert_eq!((figures.states, figures.depth), (4, 2));
        assert_eq!(figures.kinds, BTreeMap::from([("one", 1), ("two", 2)]));
        assert_eq!(figures.dead_end, Some(vec!["two"]));
    }
}
