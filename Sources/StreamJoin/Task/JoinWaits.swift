public import Wire

/// Why a message is not taken yet.
public enum JoinWait: Equatable, Sendable {
    /// Until the commit has come closer.
    case commit
    /// Until the table has reached the version that the sender has seen.
    case membership(ChatID, metaVersion: Int64)
    /// Until it is known who wrote the message that is to be changed.
    case original(seq: Int64)
}

/// How the waiting of a message ends other than by the log. It hangs on what Postgres answers and on the clock, which a
/// successor would find otherwise, so it is committed before it is acted on.
public enum JoinDecision: String, Equatable, Sendable {
    /// The version that its sender claims to have seen is not to be had: it is joined with what there is.
    case withoutVersion = "without-version"
    /// Its time is over.
    case unavailable
}

public enum JoinStep: Equatable, Sendable {
    case done
    case waiting(JoinWait)
}

/// What a waiting task asks of its runner.
public enum JoinQuestion: Equatable, Sendable {
    /// Read the chat's version and members from Postgres: `membersRead`, or `questionFailed`.
    case members(ChatID)
    /// Read the record of `chat.incoming` at this place: `originalRead`, or `questionFailed`.
    case original(seq: Int64)
}

/// The message that an edit or delete is about.
public enum Original: Equatable, Sendable {
    case message(chat: ChatID, from: UserID)
    case none
}

extension JoinTask {
    /// What is to be asked now; each question is handed out once.
    public mutating func question(nowNs: UInt64) -> JoinQuestion? {
        guard let askAtNs = waiting?.askAtNs, askAtNs <= nowNs else { return nil }
        waiting?.askAtNs = nil
        switch waiting?.reason {
        case .membership(let chat, _): return .members(chat)
        case .original(let seq): return .original(seq: seq)
        case .commit, nil: return nil
        }
    }

    /// When to ask `question`, or to offer the waiting message again because its time is over.
    public var deadlineNs: UInt64? {
        guard let waiting, waiting.reason != .commit else { return nil }
        let limit = waiting.sinceNs + UInt64(setup.limits.holdMaxMs) * 1_000_000
        return waiting.askAtNs.map { min($0, limit) } ?? limit
    }

    public var wait: JoinWait? { waiting?.reason }

    /// The membership as Postgres has it. It is written to `chat.members`, and used when it has come back from there: a
    /// successor, who would find another in Postgres, joins the same messages with the same.
    ///
    /// That of a large chat is not: its messages reach those who have been told that they are in it, and that is told from
    /// the rows, in the order of the log. Such a message goes on waiting for these.
    ///
    /// That Postgres has nothing as new as the sender claims to have seen settles it too: such a version is gone or never
    /// was. A chat that Postgres does not know has version 0 and no members.
    public mutating func membersRead(
        _ membership: ChatMembership, table: borrowing MembershipTable, output: inout JoinOutput
    ) {
        guard let waiting, case .membership(membership.chat, let wanted) = waiting.reason else { return }
        if membership.metaVersion < wanted { self.waiting?.existing = membership.metaVersion }
        let known = table.find(membership.chat).map { table.metaVersion(of: $0) } ?? 0
        guard membership.metaVersion > known, membership.members.count <= setup.limits.largeChat else { return }
        let mark = output.mark
        output.begin(incomingName, partition: partition, offset: waiting.offset)
        output.write(membership, partition: partition)
        if output.largest(since: mark) > setup.limits.recordBytesMax { output.takeBack(to: mark) }
    }

    public mutating func originalRead(seq: Int64, _ original: Original) {
        if waiting?.reason == .original(seq: seq) { waiting?.original = original }
    }

    /// The question could not be answered: it is asked again, until the message's time is over.
    public mutating func questionFailed(_ question: JoinQuestion, nowNs: UInt64) {
        let again = nowNs + UInt64(setup.limits.membersReadAfterMs) * 1_000_000
        switch (question, waiting?.reason) {
        case (.members(let asked), .membership(let chat, _)) where asked == chat: waiting?.askAtNs = again
        case (.original(let asked), .original(let seq)) where asked == seq: waiting?.askAtNs = again
        default: break
        }
    }
}
