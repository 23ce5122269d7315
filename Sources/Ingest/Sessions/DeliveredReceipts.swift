import Wire

/// The `delivered` receipts of one device on their way to the log: at most one a second and chat, the last of them, and only
/// forward. It remembers a chat for no longer than that second.
struct DeliveredReceipts {
    private struct Entry {
        var told: Int64
        var waiting: Int64?
        var nextMs: UInt64
    }

    private var chats: [ChatID: Entry] = [:]

    static let intervalMs: UInt64 = 1_000
    /// Receipts of more chats in a second are dropped: the next one of a chat tells what they would have.
    static let chatsMax = 512

    var isEmpty: Bool { chats.isEmpty }

    /// Whether to tell it now.
    mutating func take(_ chat: ChatID, _ seq: Int64, nowMs: UInt64) -> Bool {
        guard var entry = chats[chat] else {
            guard chats.count < Self.chatsMax else { return false }
            chats[chat] = Entry(told: seq, nextMs: nowMs + Self.intervalMs)
            return true
        }
        guard seq > entry.waiting ?? entry.told else { return false }
        if entry.waiting == nil, nowMs >= entry.nextMs {
            entry = Entry(told: seq, nextMs: nowMs + Self.intervalMs)
            chats[chat] = entry
            return true
        }
        entry.waiting = seq
        chats[chat] = entry
        return false
    }

    /// What has waited long enough; without a time, all that waits.
    mutating func takeDue(nowMs: UInt64?) -> [(chat: ChatID, seq: Int64)] {
        var due: [(chat: ChatID, seq: Int64)] = []
        for (chat, entry) in chats where nowMs.map({ $0 >= entry.nextMs }) ?? true {
            if let seq = entry.waiting {
                due.append((chat, seq))
                chats[chat] = Entry(told: seq, nextMs: (nowMs ?? entry.nextMs) + Self.intervalMs)
            } else {
                chats[chat] = nil
            }
        }
        return due
    }
}
