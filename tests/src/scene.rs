//! What every program of scenes does alike: play them on the stage that they share, say how long each
//! took, and leave nothing standing.

use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Instant;

use anyhow::Result;
use libtest_mimic::{Arguments, Failed, Trial};

/// What the scenes of one program share; each part of it is made when the first scene wants it.
pub trait Stage: Default + Send + Sync + 'static {
    /// Ends what was started.
    fn end(&self) -> Result<()> {
        Ok(())
    }

    /// What the servers on the stage said last, for whoever reads of a failure.
    fn last_words(&self) -> String {
        String::new()
    }
}

/// Scenes that share nothing.
impl Stage for () {}

type Play<S> = Box<dyn FnOnce(&S) -> Result<()> + Send>;

/// One test.
pub struct Scene<S> {
    name: String,
    play: Play<S>,
}

impl<S> fmt::Debug for Scene<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scene").field("name", &self.name).finish_non_exhaustive()
    }
}

impl<S: Stage> Scene<S> {
    pub fn new(
        name: impl Into<String>,
        play: impl FnOnce(&S) -> Result<()> + Send + 'static,
    ) -> Scene<S> {
        Scene { name: name.into(), play: Box::new(play) }
    }

    fn into_trial(self, stage: &Arc<S>) -> Trial {
        let Scene { name, play } = self;
        let stage = Arc::clone(stage);
        Trial::test(name.clone(), move || {
            let begin = Instant::now();
            let outcome = play(&stage);
            eprintln!("  {name}: {:.1} s", begin.elapsed().as_secs_f32());
            outcome.map_err(|error| Failed::from(format!("{error:#}{}", stage.last_words())))
        })
    }
}

/// The program's `main`: plays the scenes that the command line asks for, in their order, so many at once
/// unless the command line says otherwise.
pub fn play<S: Stage>(n_at_once: usize, scenes: impl IntoIterator<Item = Scene<S>>) -> ExitCode {
    // A second installation, by whoever, is no harm.
    let _already_installed = rustls::crypto::ring::default_provider().install_default();
    let mut arguments = Arguments::from_args();
    arguments.test_threads.get_or_insert(n_at_once);

    let stage = Arc::new(S::default());
    let trials = scenes.into_iter().map(|scene| scene.into_trial(&stage)).collect();
    let conclusion = libtest_mimic::run(&arguments, trials);
    if let Err(error) = stage.end() {
        eprintln!("the stage was not left clean: {error:#}");
        return ExitCode::FAILURE;
    }
    conclusion.exit_code()
}
