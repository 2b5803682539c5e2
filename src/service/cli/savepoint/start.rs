//! Starting applications from what others have left.

use std::io::Write;
use std::sync::Arc;
use std::time::Duration;

use clap::ArgMatches;

use crate::durability::Durability;
use crate::durability::savepoint::{Form, SavepointName};
use crate::durability::snapshot::{Attempt, SnapshotId};
use crate::ids::TaskId;
use crate::instance::{InstanceSettings, prepare};
use crate::log::Log;
use crate::savepoint::{
    Archive, Creation, Origin, Past, Restored, SavepointError, Target, Wanted, past, restore as put_in_place,
};
use crate::service::application::{Application, BoxError};
use crate::service::config::Configuration;
use crate::service::logging;
use crate::service::run::{open_blobs, open_log};
use crate::time::{Clock, HumanDuration, Millis, SystemClock};
use crate::topology::Topology;

use super::super::{Variables, build, configuration, find};
use super::{ScratchDirectory, application_id, bar, folder, name, random, take};

/// What both commands need.
struct Means<'a> {
    matches: &'a ArgMatches,
    configuration: Configuration,
    topology: Topology,
    topology_name: String,
    application_id: String,
    log: Arc<dyn Log>,
    clock: Arc<dyn Clock>,
}

impl<'a> Means<'a> {
    fn new(application: &Application, matches: &'a ArgMatches, environment: Variables) -> Result<Self, BoxError> {
        let (topology_name, function) = find(application, matches.get_one("topology"))?;
        let configuration = configuration(matches, environment, Vec::new())?;
        configuration.check_complete()?;
        let topology = build(topology_name, function, &configuration)?;
        logging::start(&configuration.settings().log);
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        Ok(Self {
            matches,
            topology_name: topology_name.to_owned(),
            application_id: application_id(&configuration)?,
            log: open_log(topology_name, &topology, &configuration, &clock)?,
            configuration,
            topology,
            clock,
        })
    }

    fn settings(&self) -> InstanceSettings {
        self.configuration.settings().instance_settings(&self.topology_name)
    }

    fn put_in_place(&self, origin: &Origin, settings: &InstanceSettings, replaces: bool) -> Result<Restored, BoxError> {
        let metrics = Arc::default();
        let blobs = open_blobs(&settings.application_id, &self.configuration, &metrics)?;
        let scratch = ScratchDirectory::new(self.matches);
        let target = Target {
            topology: &self.topology,
            settings,
            log: Arc::clone(&self.log),
            clock: Arc::clone(&self.clock),
            blobs: blobs.filter(|_| settings.durability.has_snapshots()),
            random: Arc::new(random),
            scratch: &scratch.states,
            replaces,
        };
        let bar = bar(0, true);
        bar.set_message("putting state in place");
        let restored = put_in_place(origin, &target, &mut |progress| {
            bar.set_length(progress.all_bytes);
            bar.set_position(progress.bytes);
        });
        bar.finish_and_clear();
        Ok(restored?)
    }
}

/// `savepoint restore`
pub(super) fn restore(
    application: &Application,
    matches: &ArgMatches,
    environment: Variables,
    stdout: &mut dyn Write,
) -> Result<(), BoxError> {
    let means = Means::new(application, matches, environment)?;
    let of = matches.get_one::<String>("of").unwrap_or(&means.application_id);
    let archive = Archive {
        store: folder(of, &means.configuration)?,
    };
    let name = name(matches)?;
    let savepoint = archive.read(&name)?;
    let origin = Origin::of_savepoint(Arc::clone(&archive.store), &savepoint, &name.folder());
    let restored = means.put_in_place(&origin, &means.settings(), matches.get_flag("replace"))?;
    let claimed = match matches.get_flag("claim") {
        true => {
            archive.delete(&name)?;
            ", and it is deleted"
        }
        false => "",
    };
    let (tasks, bytes) = (restored.lineages.len(), restored.bytes);
    Ok(writeln!(
        stdout,
        "savepoint {name} is in place as the state of {}: {tasks} tasks, {bytes} bytes{claimed}",
        means.application_id
    )?)
}

/// `savepoint fork`
pub(super) fn fork(
    application: &Application,
    matches: &ArgMatches,
    environment: Variables,
    stdout: &mut dyn Write,
) -> Result<(), BoxError> {
    let means = Means::new(application, matches, environment)?;
    let to = matches.get_one::<String>("to").cloned().unwrap_or_default();
    let archive = Archive {
        store: folder(&means.application_id, &means.configuration)?,
    };
    let (origin, to_be_deleted) = match (matches.contains_id("past"), matches.get_one::<String>("name")) {
        (true, _) => (of_past(&means, &archive)?, None),
        (false, Some(name)) => (of_savepoint(&archive, &name.parse()?)?, None),
        (false, None) => {
            let name = taken_now(&means, &archive, &to)?;
            (of_savepoint(&archive, &name)?, Some(name))
        }
    };
    let mut settings = means.settings();
    settings.application_id.clone_from(&to);
    if let Some(word) = matches.get_one::<String>("durability") {
        settings.durability = Durability::of_word(word).unwrap_or(settings.durability);
    }
    let restored = means.put_in_place(&origin, &settings, false);
    if let Some(name) = to_be_deleted {
        archive.delete(&name)?;
    }
    let restored = restored?;
    let (tasks, bytes) = (restored.lineages.len(), restored.bytes);
    Ok(writeln!(
        stdout,
        "{to} can be started with the state of {}: {tasks} tasks, {bytes} bytes; its own application.id = {to:?} and durability = {:?}",
        origin.what,
        settings.durability.word()
    )?)
}

fn of_savepoint(archive: &Archive, name: &SavepointName) -> Result<Origin, SavepointError> {
    let savepoint = archive.read(name)?;
    Ok(Origin::of_savepoint(
        Arc::clone(&archive.store),
        &savepoint,
        &name.folder(),
    ))
}

fn taken_now(means: &Means<'_>, archive: &Archive, to: &str) -> Result<SavepointName, BoxError> {
    let plain = |char: char| if char.is_ascii_alphanumeric() { char } else { '-' };
    let to: String = to.chars().take(32).map(plain).collect();
    let name: SavepointName = format!("fork-{to}-{}", means.clock.wall_ms()).parse()?;
    let timeout = means.matches.get_one::<HumanDuration>("timeout");
    let timeout = timeout.map_or(Duration::from_secs(600), |timeout| timeout.0);
    let creation = Creation::begin(
        &archive.store,
        &means.clock,
        name.clone(),
        Form::Native,
        timeout,
        Attempt(random()),
    )?;
    take(&creation, means.matches)?;
    Ok(name)
}

fn of_past(means: &Means<'_>, archive: &Archive) -> Result<Origin, BoxError> {
    let mut wanted = Wanted::default();
    if let Some(time) = means.matches.get_one::<String>("as-of") {
        wanted.as_of_ms = Some(time_ms(time)?);
    }
    for snapshot in means.matches.get_many::<String>("from-snapshot").into_iter().flatten() {
        let (task, id) = snapshot
            .split_once('=')
            .ok_or_else(|| format!("{snapshot:?} is not <task>=<snapshot>"))?;
        wanted
            .snapshots
            .insert(task.parse::<TaskId>()?, id.parse::<SnapshotId>()?);
    }
    let topics = prepare(&means.topology, &means.settings(), &means.log, &means.clock).map_err(SavepointError::from)?;
    let tasks = (0..topics.sub_topologies()).flat_map(|sub_topology| {
        (0..topics.tasks(sub_topology)).map(move |partition| TaskId {
            sub_topology,
            partition,
        })
    });
    let of = Past {
        store: Arc::clone(&archive.store),
        application: &means.application_id,
        plan: means.topology.plan(),
        tasks: tasks.collect(),
    };
    Ok(past(&of, &wanted)?)
}

/// Milliseconds since 1970, or a time in UTC as RFC 3339 has it, in whole seconds.
pub(super) fn time_ms(text: &str) -> Result<Millis, String> {
    if let Ok(ms) = text.parse() {
        return Ok(ms);
    }
    parse_utc(text)
        .ok_or_else(|| format!("{text:?} is not a time; expected 2026-11-30T18:00:00Z, or milliseconds since 1970"))
}

fn parse_utc(text: &str) -> Option<Millis> {
    let (date, time) = text.strip_suffix('Z')?.split_once('T')?;
    let numbers = |text: &str, separator: char| -> Option<[i64; 3]> {
        let numbers: Vec<i64> = text
            .split(separator)
            .map(|part| part.parse().ok())
            .collect::<Option<_>>()?;
        numbers.try_into().ok()
    };
    let ([year, month, day], [hour, minute, second]) = (numbers(date, '-')?, numbers(time, ':')?);
    let is_right = (1..=12).contains(&month)
        && (1..=31).contains(&day)
        && (0..24).contains(&hour)
        && (0..60).contains(&minute)
        && (0..60).contains(&second);
    if !is_right {
        return None;
    }
    // Days since 1970 in the Gregorian calendar, with years that begin in March.
    let (year, month) = if month > 2 {
        (year, month - 3)
    } else {
        (year - 1, month + 9)
    };
    let of_year = (153 * month + 2) / 5 + day - 1;
    let (era, in_era) = (year.div_euclid(400), year.rem_euclid(400));
    let days = era * 146_097 + in_era * 365 + in_era / 4 - in_era / 100 + of_year - 719_468;
    Some((((days * 24 + hour) * 60 + minute) * 60 + second) * 1_000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_utc() {
        assert_eq!(time_ms("1970-01-01T00:00:00Z"), Ok(0));
        assert_eq!(time_ms("2000-02-29T12:34:56Z"), Ok(951_827_696_000));
        assert_eq!(time_ms("2026-11-30T18:00:00Z"), Ok(1_796_061_600_000));
        assert_eq!(time_ms("1700000000000"), Ok(1_700_000_000_000));
        for wrong in [
            "",
            "yesterday",
            "2026-13-01T00:00:00Z",
            "2026-11-30T18:00Z",
            "2026-11-30T18:00:00",
        ] {
            assert!(time_ms(wrong).is_err(), "{wrong}");
        }
    }
}
