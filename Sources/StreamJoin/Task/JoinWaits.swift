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

public enum JoinStep: Equatable, Sendable {
    case done
    case waiting(JoinWait)
}

/// What a waiting task asks of its runner.
public enum JoinQuestion: Equatable, Sendable {
    /// Read the chat's version and members from Postgres: `membersRead`, or `questionFailed`.
    case members(ChatID)
    /// Read the record of `chat.incoming` at this offset: `originalRead`, or `questionFailed`.
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

    /// The membership as Postgres has it. The chat is joined against it until the log has caught up.
    ///
    /// A large chat is not: its messages reach those who have been told that they are in it, and that is told from the
    /// log, in its order. Such a message goes on waiting for the log.
    ///
    /// That Postgres has nothing as new as the sender claims to have seen settles it too: such a version is gone or never
    /// was. A chat that Postgres does not know has version 0 and no members.
    public mutating func membersRead(
        _ chat: ChatID, metaVersion: Int64, members: [(user: UserID, role: MemberRow.Role)],
        table: inout MembershipTable
    ) {
        let known = table.find(chat).map { table.metaVersion(of: $0) } ?? 0
        if metaVersion > known, members.count <= setup.limits.largeChat {
            table.setShadow(of: chat, metaVersion: metaVersion, members: members)
        }
        if case .membership(chat, let wanted) = waiting?.reason, metaVersion < wanted {
            waiting?.existing = metaVersion
        }
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
