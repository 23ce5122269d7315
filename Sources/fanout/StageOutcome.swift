import Synchronization

/// An error that ends the process with a status of its own.
protocol HasExitCode: Error {
    var exitCode: ExitCode { get }
}

/// How a stage's thread ended, told to the thread that waits for it.
final class StageOutcome: Sendable {
    private let value = Mutex(ExitCode.failure)

    func set(_ code: ExitCode) { value.withLock { $0 = code } }
    var code: ExitCode { value.withLock { $0 } }
}
