public import Runtime
internal import System

/// Finds out whether the log answers, for a stage that may have nothing to do: each second it asks for the stage's topics,
/// on a thread of its own, and tells the condition `log`.
///
/// What is written and not acknowledged is for its writer to tell: a log that refuses writes still answers questions. The
/// price is one more client in the process, and a small question a second.
public final class LogProbe: Sendable {
    private let thread: LoopThread

    public init(_ kafka: KafkaConfiguration, topics: [String], _ health: Health) throws(KafkaError) {
        let condition = health.condition("log", failing: "the log has not answered yet")
        do throws(any Error) {
            thread = try LoopThread.start(name: "log-probe") { loop throws(KafkaError) in
                let asker = Asker(try Admin(kafka, log: { _ in }), topics, condition, on: loop)
                asker.ask()
                return asker
            }
        } catch {
            throw error as? KafkaError ?? KafkaError(.other, "\(error)", place: "log probe")
        }
    }

    /// Does not wait for a question that is under way.
    public func close() { thread.stop() }
}

/// On its loop's thread only.
private final class Asker {
    private let admin: Admin
    private let topics: [String]
    private let condition: Health.Condition
    private let loop: EventLoop
    private var answeredNs: UInt64

    private static let everyMs = 1000
    private static let timeoutMs = 2000
    /// A broker that starts again, or a leader that moves, is no reason to call a stage unready.
    private static let patienceMs = 5000

    init(_ admin: Admin, _ topics: [String], _ condition: Health.Condition, on loop: EventLoop) {
        (self.admin, self.topics, self.condition, self.loop) = (admin, topics, condition, loop)
        answeredNs = loop.monotonicNs
    }

    func ask() {
        // The thread has nothing else to do: the question goes out once it is there.
        loop.schedule(afterMs: 0) { [unowned self] in
            askNow()
            loop.schedule(afterMs: Self.everyMs) { [unowned self] in ask() }
        }
    }

    private func askNow() {
        do throws(KafkaError) {
            _ = try admin.partitionCounts(of: topics, timeoutMs: Self.timeoutMs)
            answeredNs = loop.monotonicNs
            // The call may hang in spite of its timeout: then nothing but time tells.
            condition.met(forMs: Self.patienceMs, else: "the log does not answer")
        } catch {
            // Said at once: waiting does not mend it, and nothing is read or written meanwhile.
            if error.code == .unknownTopicOrPartition {
                return condition.failed("the log has no topic: \(error.place)")
            }
            guard loop.monotonicNs &- answeredNs >= UInt64(Self.patienceMs) * 1_000_000 else { return }
            condition.failed("the log does not answer")
        }
    }
}
