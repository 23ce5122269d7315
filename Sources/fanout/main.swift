import System

let frame = CommandLineFrame(
    commands: [
        .up,

        // The stages, in the order of the pipeline.
        .chat,
        .cdc,
        .join,
        .delivery,
        .history,
        .push,

        // For operators and developers.
        .broker,
        .database,
        .lag,
        .tail,
        .topics,
        .bench,
        .token,
        .demoTraffic,
    ])
CurrentProcess.exit(frame.run(CurrentProcess.arguments).rawValue)
