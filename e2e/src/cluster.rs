//! The whole cluster: up, and down again.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    time::Instant,
};

use crate::{
    backends, control_plane, dns,
    error::{Result, wrong},
    image, machine, network, node, owner,
    place::Place,
    say,
    state::State,
};

/// How much of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Extent {
    /// A node too, where the machine has what it needs.
    Whole,
    /// etcd, the API server, the controller manager and the scheduler.
    ControlPlane,
}

/// Brings it up. What was started is ended again where a part of it fails.
pub(crate) fn up(place: &Place, extent: Extent) -> Result<State> {
    let mut state = State::load(place)?;
    if state.runs() {
        return wrong("a cluster of this checkout runs: use it, or end it with `make cluster-down`");
    }
    // What an interrupted run left behind.
    down_parts(place, &mut state);
    state.lacks = match extent {
        Extent::Whole => machine::lacks(),
        Extent::ControlPlane => vec!["only the control plane was asked for".to_owned()],
    };
    match start(place, &mut state) {
        Ok(()) => Ok(state),
        Err(error) => {
            keep_logs(place, &state);
            down_parts(place, &mut state);
            state.remove();
            Err(error)
        }
    }
}

fn start(place: &Place, state: &mut State) -> Result<()> {
    state.save()?;
    let whole = state.lacks.is_empty();
    let host = if whole {
        state.forwarding = Some(network::up()?);
        state.save()?;
        owner::write(place)?;
        network::HOST
    } else {
        IpAddr::V4(Ipv4Addr::LOCALHOST)
    };
    step("control plane", || control_plane::start(place, state, host))?;
    if !whole {
        return Ok(());
    }
    step("node", || node::start(place, state))?;
    step("DNS", || dns::start(place, state))?;
    step("PostgreSQL and Kafka", || backends::start(place, state, host))?;
    step("images", || image::load_all(place))
}

fn step(what: &str, act: impl FnOnce() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    act()?;
    say(&format!("up    {what:<24} {:5.1} s", start.elapsed().as_secs_f64()));
    Ok(())
}

/// Ends it, and removes what it made.
pub(crate) fn down(place: &Place) -> Result<()> {
    let mut state = State::load(place)?;
    down_parts(place, &mut state);
    state.remove();
    Ok(())
}

fn down_parts(place: &Place, state: &mut State) {
    // First the kubelet, which would start containers again.
    if let Some(at) = state.daemons.iter().position(|daemon| daemon.name == "kubelet") {
        let kubelet = state.daemons.remove(at);
        state.daemons.push(kubelet);
    }
    state.stop_all();
    let forwarding = state.forwarding.take();
    // Also what a checkout left behind that is gone, or that was cut off.
    if forwarding.is_some() || network::exists() && !owner::runs() {
        node::clean();
        network::down(forwarding.as_deref());
    }
    let _ = fs::remove_dir_all(place.run());
    let _ = fs::create_dir_all(place.run());
}

/// Keeps what pods, PostgreSQL and Kafka wrote beside the daemons' logs.
pub(crate) fn keep_logs(place: &Place, state: &State) {
    if state.forwarding.is_some() {
        node::keep_logs(place);
        backends::keep_logs(place);
    }
}
