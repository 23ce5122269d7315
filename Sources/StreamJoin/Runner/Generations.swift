import KafkaClient
import PostgresClient
import Runtime
import Store
import Wire

/// Asks Postgres which generations the runs of `chat.incoming` have: rarely, and nothing is joined meanwhile.
final class Generations {
    private let store: ReconnectingStore?
    private let topic: String

    init(_ configuration: JoinConfiguration, _ log: Log) {
        topic = configuration.names[.incoming]
        store = configuration.postgres.map { ReconnectingStore($0, setUp: "SET application_name = 'fanout join'") }
        if store == nil {
            log.info("without --postgres chat servers are not told when chat.incoming is made again")
        }
    }

    /// Each partition's generation, at least what is known of it; what is known alone where nobody is to be asked.
    func settle(_ log: LogIdentity?, atLeast known: [Int32: Int32]) throws -> [Int32: Int32] {
        guard let store, let log, !known.isEmpty else { return known }
        let topic = topic
        do throws(PostgresError) {
            let entries = try store.use { store throws(PostgresError) in
                // A frozen Postgres must not hold up an assignment for ever.
                store.postgres.answerTimeoutMs = 2000
                return try store.rows(LogGenerations.claim(topic, log, atLeast: known))
            }
            return Dictionary(entries.map { ($0.partition, $0.generation) }, uniquingKeysWith: max)
        } catch {
            guard error.sqlState == "42P01" else { throw error }
            throw JoinError(.schema, "\(error.message); run fanout db migrate")
        }
    }
}

/// The log of accepted messages has numbers above those that would be given next.
struct NumberedAbove: Error {}

extension JoinWorker {
    /// Makes the generations of all runs the ones that everybody knows.
    func settleGenerations(_ points: inout [Int32: StartingPoint]) throws {
        var known: [Int32: Int32] = [:]
        for (partition, point) in points {
            known[partition] = max(point.positions.runs.incoming.generation, floors[partition] ?? 0)
        }
        let isSettled = points.values.allSatisfy { !$0.mustCommit } && floors.isEmpty
        let settled: [Int32: Int32]
        do {
            settled = try generations.settle(logs.incoming, atLeast: known)
        } catch let error as PostgresError where error.isTransient && isSettled {
            // What was committed was settled once.
            log.warning(
                "Postgres does not tell the generations; those of the last commit are used", ["error": "\(error)"])
            return
        }
        for (partition, generation) in settled {
            guard var point = points[partition], point.positions.runs.incoming.generation != generation else {
                continue
            }
            point.positions.runs.incoming.generation = generation
            point.mustCommit = true
            points[partition] = point
        }
    }

    /// Seq never goes back: where accepted messages are numbered above the end of `chat.incoming`, as after a database that
    /// was restored from before, or a log that was cut, the next generation begins.
    func checkNumbers(_ highest: [Int32: Int64], _ reader: borrowing LogReader) throws {
        var isAbove = false
        for (partition, seq) in highest {
            guard let slot = slots[Int(partition)] else { continue }
            let run = slot.task.position.runs.incoming
            let end = try reader.watermarks(TopicPartition(configuration.names[.incoming], partition)).high
            guard seq >= run.seq(of: end) else { continue }
            isAbove = true
            floors[partition] = LogRun.generation(ofSeq: seq) + 1
            log.error(
                "accepted messages are numbered above the end of chat.incoming; a new generation begins",
                ["partition": .init(partition), "seq": .init(seq), "end": .init(end)])
        }
        if isAbove { throw NumberedAbove() }
    }

    // MARK: Another log

    /// Which logs stand under the names now.
    func presentLogs() throws(KafkaError) -> StartingPoint.Logs {
        let topics: [Topic] = [.incoming, .members, .signals]
        let logs = try configuration.kafka.identities(of: topics.map { configuration.names[$0] })
        return StartingPoint.Logs(incoming: logs[0], members: logs[1], signals: logs[2])
    }

    func tell(_ lost: [StartingPoint.Lost], _ partition: Int32) {
        for lost in lost {
            metrics.logChanged(lost.topic)
            log.error(
                "the topic was made again: what was not worked through of the old log is lost; beginning anew",
                [
                    "topic": "\(lost.topic.rawValue)", "partition": .init(partition), "was": "\(lost.was.topicID)",
                    "now": "\(lost.now.topicID)", "position": .init(lost.position),
                ])
        }
    }

    /// A partition stands still, since its place is not in the log that is there: all begin again from what is committed and
    /// what there is.
    func lost(_ place: LostPlace) throws {
        if case .truncated(let end) = place.reason, place.partition.topic == configuration.names[.incoming],
            let slot = slots[Int(place.partition.partition)]
        {
            floors[slot.partition] = slot.task.position.runs.incoming.generation + 1
            cuts[slot.partition] = end
            // What is done has its numbers: it must not be done again under others.
            _ = try commitAll()
        } else {
            closeEpoch()
        }
        let partitions = slots.compactMap { $0?.partition }
        retain()
        try assigned(partitions)
    }
}

extension StartingPoint.Logs {
    subscript(_ topic: Topic) -> LogIdentity? {
        switch topic {
        case .incoming: incoming
        case .members: members
        case .signals: signals
        default: nil
        }
    }
}
