//! Two operators: one is asleep in the middle of a plan while another leads, and wakes. What it had begun to send is sent then; before each further
//! change it asks its fence, which is shut. PostgreSQL knows the leader's epoch, Kubernetes the versions of objects, Kafka nothing.

use crate::{
    asleep::Asleep,
    cache::Cache,
    history::{self, Act, play, tenants},
    operator::Operator,
    promises,
    random::Random,
    retained::only_who_is_there_is_let_in,
    systems::System,
    trial::{as_fresh, campaign, recover, unbroken},
    watch,
    writes::{self, Write, decided},
};
use acb_operator::plan::{KafkaStep, Step};

impl Operator {
    /// The process that is about to send a step falls asleep, and another leads. It has followed the same watches.
    pub(crate) fn fall_asleep(&mut self, step: &Step) {
        let (topic, uids) = (self.topic_of(step), self.documents.uids());
        if let Some(cache) = &mut self.cache {
            self.asleep = Some(Asleep { step: step.clone(), cache: cache.clone(), topic, uids });
            cache.change_leader();
        }
    }

    fn topic_of(&self, step: &Step) -> Option<u64> {
        let Step::Kafka(KafkaStep::RemoveTopic { name }) = step else { return None };
        self.systems.kafka.as_ref()?.id(name)
    }

    /// The sleeper wakes, and sends what it was about to.
    pub(crate) fn wake(&mut self) {
        let (Some(Asleep { step, cache, topic, uids }), Some(leading)) = (self.asleep.take(), &self.cache) else { return };
        let seen = match &step {
            Step::Kubernetes(step) => writes::target(step).and_then(|key| Some(decided(&cache.known(&key)?.object))),
            _ => None,
        };
        let is_sent = match &step {
            // The epoch is another's.
            Step::Postgres(_) => false,
            // A topic is removed by its id.
            Step::Kafka(KafkaStep::RemoveTopic { .. }) => topic.is_some() && self.topic_of(&step) == topic,
            Step::Kafka(_) => true,
            // Its watches tell it later what happened.
            Step::Kubernetes(step) => matches!(writes::write(step, &mut cache.late(leading)), Write::Sent),
        };
        if !is_sent || !self.systems.reaches(&step) {
            return;
        }
        let why = watch::forbids(&step, &self.documents, &self.systems);
        self.broken.extend(why.map(|why| format!("late: {why}: {step}")));
        let key = match &step {
            Step::Kubernetes(step) => writes::target(step),
            _ => None,
        };
        let there = |operator: &Self| Some(decided(operator.systems.kubernetes.objects.get(key.as_ref()?)?));
        let (before, all) = (there(self), self.snapshot());
        let _ = self.systems.apply(&step);
        // What is made late, after its Tenant or Agent went, is nobody's: it may only let nobody in.
        let now = self.documents.uids();
        let is_gone = uids.iter().any(|uid| !now.contains(uid));
        self.is_littered |= is_gone && self.snapshot().keys().any(|key| !all.contains_key(key));
        // What another has written since is not written over, nor removed.
        // An object that it did not know of is set right by who leads, as any other change.
        let is_anothers = seen.is_some() && before.is_some() && before != seen && before != there(self);
        self.late.extend(is_anothers.then(|| format!("one that lost undoes what another wrote: {step}")));
        self.note();
    }
}

fn acts(random: &mut Random, length: usize) -> Vec<Act> {
    let mut acts = Vec::new();
    for _ in 0..length {
        acts.push(match random.below(14) {
            0..3 => Act::Put(history::tenant(random), random.pick(&tenants()).clone()),
            3..5 => history::put_agent(random),
            5 => Act::Delete(history::tenant(random)),
            6 if random.one_in(2) => history::of_accounts(random),
            6 => Act::Delete(history::agent(random)),
            7 => Act::Rotate(history::tenant(random), format!("r{}", random.below(3))),
            8..11 => Act::Sleep(random.below(25)),
            11..13 => Act::Wake,
            _ => Act::Away(System::ALL.into_iter().filter(|_| random.one_in(4)).collect()),
        });
        if random.one_in(2) {
            acts.push(Act::Round);
        }
    }
    acts
}

fn who_lost_changes_nothing(acts: &[Act], with_kafka: bool) -> Result<(), String> {
    let mut operator = Operator::new(with_kafka);
    operator.cache = Some(Cache::default());
    play(&mut operator, acts);
    operator.wake();
    recover(&mut operator);
    operator.settle_late();
    // A leader looks for what is nobody's, too.
    operator.sweep();
    operator.settle_late();
    unbroken(&operator)?;
    operator.late.first().map_or(Ok(()), |late| Err(late.clone()))?;
    if operator.is_littered {
        // The next Tenant of the name is told of it, and waits for people.
        return only_who_is_there_is_let_in(&operator);
    }
    promises::kept(&operator)?;
    as_fresh(&operator)
}

#[test]
fn who_sleeps_and_wakes_changes_nothing_that_another_leads() {
    campaign("rivals", acts, who_lost_changes_nothing);
}
