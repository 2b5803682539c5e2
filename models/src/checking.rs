//! Runs of the checker: over the whole state space, or until a violation is found.

use std::collections::hash_map::{DefaultHasher, Entry};
use std::collections::{BTreeMap, HashMap};
use std::fmt::Debug;
use std::hash::{Hash, Hasher};

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

/// Checks every reachable state of a model.
///
/// # Errors
/// The shortest counterexample of a property that does not hold, as text.
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
    let mut discoveries: Vec<_> = checker.discoveries().into_iter().collect();
    discoveries.sort_by_key(|(name, _)| *name);
    if let Some((name, path)) = discoveries.into_iter().next() {
        let actions = path.into_actions();
        return Err(format!("{name}: violated after {} steps\n{actions:#?}", actions.len()));
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
    depth: usize,
    from: Option<(usize, &'static str)>,
    predecessors: Vec<u32>,
    is_finished: bool,
}

fn fingerprint<S: Hash>(state: &S) -> u64 {
    let mut hasher = DefaultHasher::new();
    state.hash(&mut hasher);
    hasher.finish()
}

/// Walks over all states, which the checker does too; but a checker of invariants does not say from where the end can be
/// reached, and that is what "no wait without end" means in a protocol that may try again for ever.
fn walk<M: Protocol>(model: &M) -> Figures {
    let mut index: HashMap<u64, usize> = HashMap::new();
    let mut seen: Vec<Seen> = Vec::new();
    let mut kinds = BTreeMap::new();
    let mut frontier: Vec<(usize, M::State)> = Vec::new();
    for state in model.init_states() {
        index.insert(fingerprint(&state), seen.len());
        frontier.push((seen.len(), state.clone()));
        seen.push(Seen {
            depth: 0,
            from: None,
            predecessors: Vec::new(),
            is_finished: model.is_finished(&state),
        });
    }
    while !frontier.is_empty() {
        let mut next = Vec::new();
        for (at, state) in frontier {
            let mut actions = Vec::new();
            model.actions(&state, &mut actions);
            for action in actions {
                let kind = M::kind(&action);
                let Some(reached) = model.next_state(&state, action) else {
                    continue;
                };
                *kinds.entry(kind).or_insert(0) += 1;
                let to = match index.entry(fingerprint(&reached)) {
                    Entry::Occupied(known) => *known.get(),
                    Entry::Vacant(place) => {
                        let to = *place.insert(seen.len());
                        seen.push(Seen {
                            depth: seen[at].depth + 1,
                            from: Some((at, kind)),
                            predecessors: Vec::new(),
                            is_finished: model.is_finished(&reached),
                        });
                        next.push((to, reached));
                        to
                    }
                };
                seen[to].predecessors.push(at as u32);
            }
        }
        frontier = next;
    }
    Figures {
        states: seen.len(),
        depth: seen.iter().map(|seen| seen.depth).max().unwrap_or(0),
        kinds,
        dead_end: dead_end(&seen),
    }
}

/// The shortest way to a state from which no finished state can be reached.
fn dead_end(seen: &[Seen]) -> Option<Vec<&'static str>> {
    let mut reaches: Vec<bool> = seen.iter().map(|seen| seen.is_finished).collect();
    let mut open: Vec<usize> = (0..seen.len()).filter(|at| reaches[*at]).collect();
    while let Some(at) = open.pop() {
        for before in &seen[at].predecessors {
            let before = *before as usize;
            if !std::mem::replace(&mut reaches[before], true) {
                open.push(before);
            }
        }
    }
    // States are numbered in the order of their distance from the beginning.
    let mut at = reaches.iter().position(|reaches| !reaches)?;
    let mut steps = Vec::new();
    while let Some((before, kind)) = seen[at].from {
        steps.push(kind);
        at = before;
    }
    steps.reverse();
    Some(steps)
}
