import Delivery
import History
import KafkaClient
import Synchronization

/// An error that ends the process with a status of its own.
protocol HasExitCode: Error {
    var exitCode: ExitCode { get }
}

extension KafkaError: HasExitCode {
    var exitCode: ExitCode { isNameTaken ? .nameTaken : .failure }
}

extension DeliveryError: HasExitCode {
    var exitCode: ExitCode { code == .nameTaken ? .nameTaken : .failure }
}

extension HistoryError: HasExitCode {
    var exitCode: ExitCode { code == .nameTaken ? .nameTaken : .failure }
}

/// How a stage's thread ended, told to the thread that waits for it.
final class StageOutcome: Sendable {
    private let value = Mutex(ExitCode.failure)

    func set(_ code: ExitCode) { value.withLock { $0 = code } }
    var code: ExitCode { value.withLock { $0 } }
}
