import PushLink
import Wire

/// Makes the seq of a message of the offset that the log gave it: below the generation of the log's run, which Postgres
/// knows (docs/decisions/012). What is acknowledged before the generation is known waits, since a seq that is told once is
/// never taken back.
struct SeqNumbers {
    struct Answer: Equatable {
        let session: SessionNumber
        let id: MessageID
        let chat: ChatID
        let partition: Int32
        let offset: Int64
        let ts: Int64
        /// When it was sent to the log.
        let sentMs: Int64
    }

    private let partitionCount: Int32
    /// Whether there is somebody to ask; else seq is the offset.
    private let isAsked: Bool
    private var log: LogIdentity?
    /// By partition; nil while they are not known.
    private var generations: [Int32]?
    /// The highest offset acknowledged, by partition.
    private var highest: [Int64]
    private var held: [Answer] = []
    /// An offset was given again: the log is another, or has lost its end. By then it is known whether it is another.
    private var doubtUntilMs: Int64?
    private var nextAskMs: Int64 = 0

    static let askEveryMs: Int64 = 5_000
    private static let retryMs: Int64 = 250
    /// Longer than it takes to notice that a topic was made again.
    static let doubtMs: Int64 = 2_500
    static let heldMax = 10_000

    init(partitionCount: Int32, isAsked: Bool) {
        self.partitionCount = partitionCount
        self.isAsked = isAsked
        highest = [Int64](repeating: -1, count: Int(partitionCount))
        if !isAsked { generations = [Int32](repeating: 0, count: Int(partitionCount)) }
    }

    var isWaiting: Bool { !held.isEmpty }

    enum Verdict: Equatable {
        case answer(seq: Int64)
        case wait
        /// So many wait already that this one must be sent again, which is harmless.
        case full
    }

    /// The log has the message.
    mutating func acknowledged(_ answer: Answer, nowMs: Int64) -> Verdict {
        let partition = Int(answer.partition)
        if isAsked, answer.offset <= highest[partition], doubtUntilMs == nil { doubtUntilMs = nowMs + Self.doubtMs }
        guard let generations, doubtUntilMs == nil else {
            guard held.count < Self.heldMax else { return .full }
            held.append(answer)
            return .wait
        }
        highest[partition] = answer.offset
        return .answer(seq: LogRun(generation: generations[partition]).seq(of: answer.offset))
    }

    /// Which log stands under the name, as the producer knows it. Answers which generations are to be asked for.
    mutating func look(at present: LogIdentity?, nowMs: Int64) -> LogIdentity? {
        guard isAsked else { return nil }
        if present != log {
            log = present
            generations = nil
            highest = [Int64](repeating: -1, count: Int(partitionCount))
            doubtUntilMs = nil
            nextAskMs = 0
        }
        guard nowMs >= nextAskMs || doubtUntilMs.map({ nowMs >= $0 }) ?? false else { return nil }
        nextAskMs = nowMs + Self.retryMs
        return log
    }

    /// Whether the answer to a question is all that is needed: if not, the generations are to be claimed.
    func isComplete(_ entries: [(partition: Int32, generation: Int32)], of asked: LogIdentity) -> Bool {
        guard asked == log else { return true }
        return Set(entries.map(\.partition)).isSuperset(of: 0..<partitionCount)
            && entries.allSatisfy { $0.generation >= floor($0.partition) }
    }

    /// What has been told already.
    func floor(_ partition: Int32) -> Int32 { generations?[Int(partition)] ?? 0 }

    /// Postgres has answered; what has waited is answered now.
    mutating func learned(
        _ entries: [(partition: Int32, generation: Int32)], of asked: LogIdentity?, nowMs: Int64
    ) -> [(Answer, seq: Int64)] {
        guard asked == log else { return [] }
        var known = generations ?? [Int32](repeating: 0, count: Int(partitionCount))
        for entry in entries where entry.partition >= 0 && entry.partition < partitionCount {
            known[Int(entry.partition)] = max(known[Int(entry.partition)], entry.generation)
        }
        generations = known
        nextAskMs = nowMs + Self.askEveryMs
        if let doubt = doubtUntilMs {
            guard nowMs >= doubt else { return [] }
            doubtUntilMs = nil
        }
        let answers = held.map { ($0, seq: LogRun(generation: known[Int($0.partition)]).seq(of: $0.offset)) }
        for answer in held { highest[Int(answer.partition)] = answer.offset }
        held = []
        return answers
    }
}
