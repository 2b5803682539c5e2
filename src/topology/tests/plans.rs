//! Shapes of plans: sub-topologies, descriptions, fingerprints.

use std::time::Duration;

use super::driver::text;
use crate::codec::{I32Be, I64Be, Utf8};
use crate::operators::{Emit, TumblingWindows};
use crate::topology::{Builder, Topic, Topology, diff};

fn sample(grace: Duration, change: bool) -> Topology {
    let builder = Builder::new();
    let planes = builder.table(&text("planes"), "planes");
    let flights = builder.stream(&text("flights"));
    let hours = TumblingWindows::of(Duration::from_secs(3600)).grace(grace);
    let departed = if change {
        flights.filter(|_| true).peek(|_| ())
    } else {
        flights
    };
    departed
        .group_by_key()
        .windowed_by(hours)
        .emit(Emit::OnClose)
        .count("departures")
        .to_stream()
        .map(|r| r.with_key(Some("key".to_owned())))
        .to(&Topic::new("departures", Utf8, I64Be));
    flights
        .select_key(|r| r.value.clone())
        .left_join_table("with-plane", &planes, |_, plane| plane.unwrap_or_default())
        .to(&text("flown"));
    builder.build().unwrap()
}

#[test]
fn a_topology_crosses_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<Topology>();
}

#[test]
fn a_description_shows_nodes_topics_stores_and_parameters_as_text() {
    let topology = sample(Duration::from_secs(60), false);
    let wanted = "\
sub-topology 0
  source-planes: source (topic planes) -> planes
  planes: table (stores: planes)
  source-with-plane-repartition: source (topic with-plane-repartition) -> with-plane
  with-plane: left-join-table (stores: planes) -> sink-flown
  sink-flown: sink (topic flown)
sub-topology 1
  source-flights: source (topic flights) -> departures, select-key-6
  departures: windowed-count size_ms=3600000 grace_ms=60000 emit=OnClose (stores: departures) -> map-4
  map-4: map -> sink-departures
  sink-departures: sink (topic departures)
  select-key-6: select-key -> sink-with-plane-repartition
  sink-with-plane-repartition: sink (topic with-plane-repartition)
";
    assert_eq!(topology.describe().text(), wanted);
}

#[test]
fn a_description_draws_itself_for_graphviz_and_mermaid() {
    let builder = Builder::new();
    builder
        .stream(&text("in"))
        .group_by_key()
        .count("counts")
        .to_stream()
        .to(&Topic::new("out", Utf8, I64Be));
    let topology = builder.build().unwrap();
    let graphviz = "\
digraph topology {
  rankdir=LR;
  node [shape=box];
  subgraph cluster_0 {
    label=\"sub-topology 0\";
    n0 [label=\"source-in\\nsource\"];
    n1 [label=\"counts\\ncount\\nstore counts\"];
    n2 [label=\"sink-out\\nsink\"];
  }
  t0 [label=\"in\", shape=cylinder];
  t1 [label=\"out\", shape=cylinder];
  t0 -> n0;
  n0 -> n1;
  n1 -> n2;
  n2 -> t1;
}
";
    assert_eq!(topology.describe().graphviz(), graphviz);
    let mermaid = "\
flowchart LR
  subgraph s0 [sub-topology 0]
    n0[\"source-in<br/>source\"]
    n1[\"counts<br/>count<br/>store counts\"]
    n2[\"sink-out<br/>sink\"]
  end
  t0[(\"in\")]
  t1[(\"out\")]
  t0 --> n0
  n0 --> n1
  n1 --> n2
  n2 --> t1
";
    assert_eq!(topology.describe().mermaid(), mermaid);
}

/// If this fails, running applications would refuse their own state: raise the format's number and keep the old text readable.
#[test]
fn the_fingerprint_is_stable_from_version_to_version() {
    let topology = sample(Duration::from_secs(60), false);
    let wanted = "\
plan format 1
sub-topology 0 reads planes
sub-topology 0 reads with-plane-repartition
sub-topology 0 node planes: table with planes
sub-topology 0 node with-plane: left-join-table with planes
sub-topology 0 store planes: hashed, utf8 -> row of utf8
sub-topology 1 reads flights
sub-topology 1 node departures: windowed-count size_ms=3600000 with departures
sub-topology 1 store departures: ordered, start-first(utf8, 3600000 ms) -> row of i64-be
topic with-plane-repartition: partitions as upstream, utf8 -> utf8
";
    assert_eq!(topology.plan_text(), wanted);
    assert_eq!(topology.fingerprint(), "c05327181ec7de85");
}

#[test]
fn nodes_without_state_and_grace_may_change_freely() {
    let topology = sample(Duration::from_secs(60), false);
    let changed = sample(Duration::from_secs(99), true);
    assert_ne!(topology.describe().text(), changed.describe().text());
    assert_eq!(topology.fingerprint(), changed.fingerprint());
    assert_eq!(diff(topology.plan_text(), changed.plan_text()), None);
}

#[test]
fn another_codec_of_a_store_is_another_plan_and_the_difference_names_it() {
    let counted = |wide: bool| {
        let builder = Builder::new();
        let grouped = builder.stream(&text("in")).group_by_key();
        if wide {
            grouped.aggregate("counts", || 0_i64, |_, _, n| n + 1);
        } else {
            grouped.aggregate("counts", || 0_i32, |_, _, n| n + 1);
        }
        builder.build().unwrap()
    };
    let (narrow, wide) = (counted(false), counted(true));
    assert_ne!(narrow.fingerprint(), wide.fingerprint());
    let difference = diff(narrow.plan_text(), wide.plan_text()).unwrap();
    let wanted = "\
- sub-topology 0 store counts: hashed, utf8 -> row of i32-be
+ sub-topology 0 store counts: hashed, utf8 -> row of i64-be
";
    assert_eq!(difference, wanted);
    assert_eq!(
        diff("a\nb\n", "b\na\n").as_deref(),
        Some("the same lines in another order\n")
    );
}

#[test]
fn a_name_given_once_to_a_source_serves_every_reader_of_the_topic() {
    let builder = Builder::new();
    let topic = Topic::new("in", I32Be, Utf8);
    builder.stream(&topic).to(&Topic::new("a", I32Be, Utf8));
    builder.stream(&topic.clone()).to(&Topic::new("a", I32Be, Utf8));
    let plan_nodes = builder
        .build()
        .unwrap()
        .plan()
        .nodes
        .iter()
        .map(|n| n.name.to_string())
        .collect::<Vec<_>>();
    assert_eq!(plan_nodes, ["source-in", "sink-a", "sink-a-2"]);
}
