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
        .restore,
        .lag,
        .tail,
        .topics,
        .plan,
        .bench,
        .token,
        .demoTraffic,
    ])
// A stage has a descriptor for each connection, the broker for each log file too. Children inherit it.
CurrentProcess.raiseDescriptorLimit()
CurrentProcess.exit(frame.run(CurrentProcess.arguments).rawValue)
