//! What the client's thread does before and after its loop: invitation, records, ports, handshake.
//!
//! Nothing is served yet, so waiting is allowed here; every wait is bounded, and ends when the manager hangs up or the owner
//! gives the opening up.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::bell::Bell;
use super::poller::{Ends, Poller};
use super::{ClientFds, Expected, Setup, Shared};
use crate::board::Board;
use crate::doorbell::{Doorbell, Line};
use crate::error::{OpenError, TransportError};
use crate::gate::SharedGate;
use crate::header::{AnswerKind, Operation, RequestHeader, RequestKind};
use crate::invitation::{Hello, Letter};
use crate::root::TransportRoot;
use crate::spill::SpillDir;
use crate::status::StatusBlock;
use crate::transport::{AnswerState, ClientTransport, PendingAnswer, SendFailure};
use crate::waker::Waker;

/// How long opening may take.
const PATIENCE: Duration = Duration::from_secs(10);
/// Pause between tries to open what another process is creating.
const RETRY: Duration = Duration::from_millis(20);
/// Bound of one wait during the handshake.
const TICK: Duration = Duration::from_millis(100);

pub(super) type Ready = oneshot::Sender<Result<(Arc<Shared>, Setup), OpenError>>;

/// Everything that happens on the poller thread.
pub(super) fn run_thread<C: ClientTransport>(
    fds: ClientFds,
    expected: Expected,
    waker: Waker,
    ends: Ends,
    build: impl FnOnce(&Letter, Instant, &mut dyn FnMut() -> bool) -> Result<C, TransportError>,
    ready_tx: Ready,
) {
    crate::signals::block_all();
    match open(fds, expected, waker, ends, build) {
        Ok((mut poller, shared, setup)) => {
            // The handshake's answer came behind the newest control state: whoever opens has it from the start.
            poller.take_control();
            // The owner that gave up waiting has dropped the client, which aborts the poller.
            let _owner_waits = ready_tx.send(Ok((shared, setup)));
            poller.run();
        }
        Err(error) => {
            let _owner_waits = ready_tx.send(Err(error));
        }
    }
}

fn system(action: &'static str) -> impl FnOnce(std::io::Error) -> OpenError {
    move |source| OpenError::System { action, source }
}

fn open<C: ClientTransport>(
    fds: ClientFds,
    expected: Expected,
    waker: Waker,
    ends: Ends,
    build: impl FnOnce(&Letter, Instant, &mut dyn FnMut() -> bool) -> Result<C, TransportError>,
) -> Result<(Poller<C>, Arc<Shared>, Setup), OpenError> {
    let patience = Patience {
        until: Instant::now() + PATIENCE,
        abort: ends.abort.clone(),
    };
    let doorbell = Doorbell::from_inherited(fds.doorbell).map_err(system("take the doorbell"))?;
    let board = Board::open(fds.board).map_err(system("map the board"))?;
    let letter = read_letter(&doorbell, &patience)?;
    check_letter(&letter, expected)?;
    let status = StatusBlock::open(fds.status, letter.incarnation)
        .map_err(system("map the status block"))?;
    // Before anything is opened: the manager's janitor finds what this process leaves by its pid.
    status.set_pid(std::process::id());
    let gate = SharedGate::new(board.clone());
    let mut bell = Bell::new(doorbell, waker.clone(), board, letter.local_id);
    let mut pause = || {
        bell.listen(RETRY);
        bell.line() == Line::Open && patience.left().is_ok()
    };
    let built = build(&letter, patience.until, &mut pause);
    let transport = match built {
        Ok(transport) => transport,
        Err(_) if bell.line() == Line::HungUp => return Err(OpenError::Gone),
        Err(_) if patience.is_given_up() => return Err(OpenError::GivenUp),
        Err(error) => return Err(error.into()),
    };
    let root = TransportRoot::invited(letter.root.clone());
    let shared = Arc::new(Shared {
        incarnation: letter.incarnation,
        status,
        gate,
        waker,
        spill: SpillDir::new(root.path()),
    });
    let mut poller = Poller::new(shared.clone(), transport, bell, ends);
    shake_hands(&mut poller, &letter, &patience)?;
    let setup = Setup {
        setup: letter.setup,
        manager: letter.manager,
        local_id: letter.local_id,
        incarnation: letter.incarnation,
    };
    Ok((poller, shared, setup))
}

/// How long an opening goes on.
struct Patience {
    until: Instant,
    /// Set when the owner has dropped the future of the opening.
    abort: Arc<AtomicBool>,
}

impl Patience {
    fn is_given_up(&self) -> bool {
        self.abort.load(Ordering::SeqCst)
    }

    /// Why not to wait any longer.
    fn left(&self) -> Result<(), OpenError> {
        if self.is_given_up() {
            return Err(OpenError::GivenUp);
        }
        if Instant::now() >= self.until {
            return Err(OpenError::TimedOut {
                seconds: PATIENCE.as_secs(),
            });
        }
        Ok(())
    }
}

fn read_letter(doorbell: &Doorbell, patience: &Patience) -> Result<Letter, OpenError> {
    let bytes = loop {
        match doorbell.receive_message() {
            Ok(Some(bytes)) => break bytes,
            Ok(None) => {
                patience.left()?;
                doorbell.wait(TICK);
            }
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => {
                return Err(OpenError::Gone);
            }
            Err(source) => return Err(system("read the doorbell")(source)),
        }
    };
    Letter::decode(&bytes).map_err(|error| OpenError::Invitation {
        reason: error.to_string(),
    })
}

fn check_letter(letter: &Letter, expected: Expected) -> Result<(), OpenError> {
    let found = Expected {
        manager: letter.manager,
        local_id: letter.local_id,
    };
    if found == expected {
        return Ok(());
    }
    let words = |who: Expected| format!("worker {} of manager {}", who.local_id, who.manager);
    Err(OpenError::Mismatch {
        invited: words(found),
        expected: words(expected),
    })
}

fn shake_hands<C: ClientTransport>(
    poller: &mut Poller<C>,
    letter: &Letter,
    patience: &Patience,
) -> Result<(), OpenError> {
    let hello = Hello {
        manager: letter.manager,
        local_id: letter.local_id,
        incarnation: letter.incarnation,
        pid: std::process::id(),
        token: letter.token.clone(),
    }
    .encode();
    let header =
        RequestHeader::new(RequestKind::Hello, letter.incarnation).with_data(hello.len(), false);
    let sent = poller.transport.send(Operation::Report, header, &hello);
    let mut pending = sent.map_err(|failure| match failure {
        SendFailure::Transport(error) => OpenError::Transport(error),
        SendFailure::Full | SendFailure::Disconnected => OpenError::Gone,
    })?;
    let status = &poller.shared.status;
    poller.bell.call(status);
    loop {
        match pending.poll() {
            AnswerState::Answered { header, payload } => {
                let checked = header.check(letter.incarnation, payload.len());
                let checked = checked.map_err(|fault| OpenError::Invitation {
                    reason: fault.to_string(),
                })?;
                return match checked.kind {
                    AnswerKind::Welcome => Ok(()),
                    _ => Err(OpenError::Refused {
                        reason: String::from_utf8_lossy(checked.inline(&payload)).into_owned(),
                    }),
                };
            }
            AnswerState::Disconnected => return Err(OpenError::Gone),
            AnswerState::Failed(error) => return Err(error.into()),
            AnswerState::Waiting if poller.bell.line() == Line::HungUp => {
                return Err(OpenError::Gone);
            }
            AnswerState::Waiting => {
                patience.left()?;
                poller.bell.block(status, TICK, || pending.is_ready());
            }
        }
    }
}
