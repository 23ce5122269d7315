import KafkaClient
import Synchronization
import Wire

/// Which log stands under the name of `chat.incoming`, looked at once a second: the writers do not see when the topic is made
/// again.
final class PresentLog: Sendable {
    enum Answer: Sendable {
        case unknown
        /// The brokers have no topic ids.
        case untold
        case log(LogIdentity)
    }

    private let known = Mutex(Answer.unknown)

    var answer: Answer { known.withLock { $0 } }

    /// Asks. A log that does not answer, or a topic that is gone for now, changes nothing.
    func look(_ configuration: IngestConfiguration) {
        guard let answer = try? configuration.kafka.identities(of: [configuration.names[.incoming]], timeoutMs: 1000)
        else { return }
        known.withLock { $0 = answer[0].map { .log($0) } ?? .untold }
    }
}
