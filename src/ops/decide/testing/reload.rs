//! What reloads do to the world of [`super::model`].

use super::model::{Run, Side, Stop};
use crate::ops::request::Strategy;

impl Run {
    /// A reload; with strategy Auto the last pod turns out to need a restart, with company.
    pub(in crate::ops) fn reload(&mut self, name: &str) -> Result<(), Stop> {
        let surge = self.plan.surge_pod();
        let cannot = self.plan.settings.strategy == Strategy::Auto
            && self.plan.pods.last().is_some_and(|last| last.name == name);
        if self.world.template == Side::Former {
            // An undo that was cut has taken the switch back.
            self.effect(|w| w.server = Side::Target)?;
            self.effect(|w| w.template = Side::Target)?;
        }
        let pod = &self.world.pods[name];
        if pod.marked == Some(Side::Target) && pod.serving {
            // Done, but for the company that is still there.
        } else if cannot {
            if self.plan.replicas == 1 {
                self.surge()?;
            }
            self.replace(name)?;
        } else {
            self.take_up(name, Side::Target)?;
        }
        if self.world.pods.contains_key(&surge) {
            self.unsurge()?;
        }
        Ok(())
    }

    fn take_up(&mut self, name: &str, side: Side) -> Result<(), Stop> {
        self.effect(|w| w.pods.get_mut(name).unwrap().marked = None)?;
        self.effect(|w| w.pods.get_mut(name).unwrap().paused = true)?;
        self.effect(|w| {
            let pod = w.pods.get_mut(name).unwrap();
            pod.side = side;
            pod.paused = false;
        })?;
        self.effect(|w| w.pods.get_mut(name).unwrap().marked = Some(side))
    }

    pub(in crate::ops) fn unreload(&mut self, name: &str) -> Result<(), Stop> {
        self.effect(|w| w.pods.get_mut(name).unwrap().paused = false)?;
        self.effect(|w| w.server = Side::Former)?;
        self.effect(|w| w.template = Side::Former)?;
        self.go_back(name)
    }

    pub(in crate::ops) fn go_back(&mut self, name: &str) -> Result<(), Stop> {
        if self.world.pods[name].marked != Some(Side::Former) {
            self.take_up(name, Side::Former)?;
        }
        if !self.world.pods[name].serving {
            self.effect(|w| w.put_back(name))?;
        }
        Ok(())
    }
}
