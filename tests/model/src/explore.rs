//! Explores a scenario, breadth first, so that a counterexample is a shortest one.

use std::time::{Duration, Instant};

use stateright::{Checker, Expectation, HasDiscoveries, Model};

use crate::scenario::Scenario;
use crate::world::Step;

/// What came of it.
pub(crate) struct Outcome {
    pub(crate) states: usize,
    pub(crate) depth: usize,
    pub(crate) took: Duration,
    /// Whether every state within the bounds was looked at.
    pub(crate) complete: bool,
    /// Broken properties.
    pub(crate) failures: Vec<Failure>,
    /// What should have been reached and was not.
    pub(crate) unseen: Vec<&'static str>,
}

pub(crate) struct Failure {
    pub(crate) property: &'static str,
    pub(crate) steps: Vec<Step>,
    pub(crate) reasons: Vec<String>,
}

/// Looks at no more than so many states.
pub(crate) fn explore(scenario: &Scenario, states_max: usize) -> Outcome {
    let begun = Instant::now();
    let builder = scenario.clone().checker().finish_when(HasDiscoveries::AnyFailures).target_state_count(states_max);
    let checker = builder.spawn_bfs().join();
    let (mut failures, mut unseen) = (Vec::new(), Vec::new());
    for property in scenario.properties() {
        let discovery = checker.discovery(property.name);
        match (property.expectation, discovery) {
            (Expectation::Always, Some(path)) => failures.push(Failure {
                property: property.name,
                reasons: path.last_state().verdict().to_vec(),
                steps: path.into_actions(),
            }),
            (Expectation::Sometimes, None) => unseen.push(property.name),
            _ => {}
        }
    }
    Outcome {
        states: checker.unique_state_count(),
        // It counts states, the first one included.
        depth: checker.max_depth() - 1,
        took: begun.elapsed(),
        complete: checker.state_count() < states_max,
        failures,
        unseen,
    }
}
