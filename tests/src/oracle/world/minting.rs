//! Binding and minting, by sessions and by replicas.

use shoal_protocol::causality::Dot;
use shoal_protocol::id::Actor;
use shoal_protocol::object::{Mint, Object, Operation, Totals, bind, own_total};
use shoal_protocol::time::Hlc;

use crate::oracle::ledger::{Binding, State};
use crate::oracle::marks::Marks;
use crate::oracle::session::{Course, Verdict};
use crate::oracle::world::{Message, World};
use crate::oracle::{Fault, Mutant, Profile};

/// What an operation is bound with, besides itself.
struct Means {
    prev: u64,
    totals: Option<Totals>,
    /// The additions in `totals`.
    implies: Marks,
}

impl World {
    /// A session binds an operation against what it sees, and perhaps sends it at once.
    pub(super) fn issue(&mut self, session: usize) {
        let operation = self.profile.draw(&mut self.dice, self.ledger.facts.len(), false);
        let waits = self.sessions[session].outbox.iter().any(|op| self.ledger.facts[*op].operation.binds_counters());
        if waits && operation.binds_counters() && self.mutant != Some(Mutant::EagerTotal) {
            return;
        }
        let local = self.sessions[session].local(&self.ledger, &self.courses);
        self.check("what a session shows", &local);
        let skip = self.dice.below(3) as u64;
        let forgot = self.dice.chance(5);
        let prev = self.previous(session);
        let mint = &mut self.sessions[session];
        mint.minted += 1 + skip;
        let dot = Dot { actor: mint.actor, n: mint.minted };
        let prev = if forgot { dot.n - 1 } else { prev };
        let op = self.note(operation, dot, &local);
        let operation = &self.ledger.facts[op].operation;
        let counted = operation.counter_path().zip(operation.counter_by());
        let counted = counted.map(|(path, by)| self.sessions[session].count(path, op, by));
        let means = Means {
            prev,
            totals: counted.map(|(totals, _)| totals),
            implies: counted.map(|(_, ops)| ops).unwrap_or_default(),
        };
        let binding = self.bind(op, &local, &means);
        self.courses.push(Course { session: Some(session), ..self.course(binding) });
        self.sessions[session].outbox.push(op);
        self.say(|world| format!("s{session} {}", world.told(op, prev)));
        if self.dice.chance(80) {
            self.send(op);
        }
    }

    /// A replica mints an operation for a client without a session; while it is catching up, only what observes nothing.
    pub(super) fn mint(&mut self, at: usize) {
        let blind = self.replicas[at].catching_up;
        let operation = self.profile.draw(&mut self.dice, self.ledger.facts.len(), blind);
        let skip = self.dice.below(3) as u64;
        let forgot = self.dice.chance(5);
        let live = self.replicas[at].live.clone();
        let replica = &mut self.replicas[at];
        let dot = Dot { actor: replica.actor, n: replica.next_number(skip) };
        let known = live.object.context().max(dot.actor);
        let dense = forgot || (self.mutant == Some(Mutant::OldIncarnationAfterLostRow) && known == 0);
        let prev = if dense && self.mutant != Some(Mutant::PrevZeroAfterLostRow) { dot.n - 1 } else { known };
        let op = self.note(operation, dot, &live);
        let fact = &self.ledger.facts[op];
        let means = match fact.operation.counter_path().zip(fact.operation.counter_by()) {
            Some((path, by)) => Means {
                prev,
                totals: own_total(&live.object, dot.actor, &path).plus(by),
                implies: self.ledger.own_counts(live.history, fact) | Marks::one(op),
            },
            None => Means { prev, totals: None, implies: Marks::default() },
        };
        let binding = self.bind(op, &live, &means);
        self.courses.push(Course { admitted: true, ..self.course(binding) });
        self.say(|world| format!("r{at} mints {}", world.told(op, prev)));
        let attempt = self.attempt(op);
        let bound = self.ledger.alone(binding);
        self.replicas[at].live.merge(&bound);
        self.check_replica(at);
        self.replicas[at].unsynced_attempts.push(attempt);
        let others = (0..self.replicas.len()).filter(|to| *to != at);
        let messages = others.map(|to| Message::Delta { to, binding, object: None, attempt });
        if self.mutant == Some(Mutant::EarlyDelta) {
            self.network.extend(messages);
        } else {
            let messages: Vec<Message> = messages.collect();
            self.replicas[at].held_back.extend(messages);
        }
    }

    /// The number of the session's last dot on the key; refused operations are skipped.
    fn previous(&self, session: usize) -> u64 {
        let own = self.courses.iter().enumerate().filter(|(_, course)| course.session == Some(session));
        let kept = own.filter(|(_, course)| course.verdict != Verdict::Refused);
        kept.map(|(op, _)| self.ledger.facts[op].dot.n).max().unwrap_or(0)
    }

    fn note(&mut self, operation: Operation, dot: Dot, seen: &State) -> usize {
        if self.ledger.facts.iter().any(|fact| fact.dot == dot) {
            self.find(Fault::DotReused, format!("{dot:?}"));
        }
        let now = 4 * self.step as u64;
        let hlc = if self.profile == Profile::LwwRightClocks {
            Hlc(now)
        } else {
            let skewed = (now + self.dice.below(60) as u64).saturating_sub(30);
            Hlc(skewed.max(seen.object.hlc_max().0 + 1))
        };
        self.ledger.note(operation, dot, hlc)
    }

    fn bind(&mut self, op: usize, seen: &State, means: &Means) -> usize {
        let fact = &self.ledger.facts[op];
        let mint = Mint { dot: fact.dot, prev: means.prev, hlc: fact.hlc, total: means.totals };
        let mut delta = bind(&fact.operation, &mint, &seen.object).expect("what is drawn can be bound");
        let partial = matches!(
            fact.operation,
            Operation::SetRemove { .. }
                | Operation::SetClear
                | Operation::Disable
                | Operation::MapUpdate { .. }
                | Operation::MapRemove { .. }
        );
        if self.mutant == Some(Mutant::WholeContextRemove) && partial {
            delta.merge_into(&Object::of_context(seen.object.context().clone()));
        }
        let replaces = self.ledger.replaced_by(op, seen.history) - Marks::one(op);
        self.ledger.bound(Binding { op: Some(op), delta, replaces, implies: means.implies })
    }

    fn course(&self, binding: usize) -> Course {
        Course { session: None, binding, invoked_at: self.step, verdict: Verdict::Open, attempts: 0, admitted: false }
    }

    fn told(&self, op: usize, prev: u64) -> String {
        let fact = &self.ledger.facts[op];
        let binding = self.courses[op].binding;
        let replaced: Vec<usize> = self.ledger.bindings[binding].replaces.iter().collect();
        let Dot { actor: Actor(actor), n } = fact.dot;
        format!(
            "op{op} = b{binding} {:?} at {:x}:({prev},{n}], {:?}, for ops {replaced:?}",
            fact.operation, actor, fact.hlc
        )
    }
}
