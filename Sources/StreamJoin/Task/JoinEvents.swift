import Wire

/// A change of membership, as it is told.
struct MembershipEvent: Equatable, Sendable {
    enum Change: String, Sendable { case added, removed, role }

    var chat: ChatID
    var user: UserID
    var change: Change
    var metaVersion: Int64
}

/// A statement that has changed many members of a chat, as it is told to all of them.
struct BulkChange: Equatable, Sendable {
    private(set) var added = 0
    private(set) var removed = 0
    private(set) var roles = 0

    mutating func add(_ change: MembershipEvent.Change) {
        switch change {
        case .added: added += 1
        case .removed: removed += 1
        case .role: roles += 1
        }
    }
}

// The events, and who gets them. Each source record leads to at most one record in a delivery partition: readers keep
// no more of a source than the highest offset they have seen.
extension JoinOutput {
    /// Sends the event to the chat: to its members listed by partition, or, if it is large, to each partition once.
    /// Returns how many recipients were named.
    mutating func fanOut(
        to chat: MembershipTable.Chat, _ id: ChatID, of table: borrowing MembershipTable, largeChat: Int,
        except absent: UserID?
    ) -> Int {
        if table.memberCount(of: chat) > largeChat {
            for partition in 0..<table.deliveryPartitions { self.largeChat(id, partition: partition) }
            return Int(table.deliveryPartitions)
        }
        return list(chat, of: table, except: absent) { output, partition in
            output.endRecipients(partition: partition)
        }
    }

    private mutating func list(
        _ chat: MembershipTable.Chat, of table: borrowing MembershipTable, except absent: UserID?,
        end: (inout JoinOutput, Int32) -> Void
    ) -> Int {
        var open: Int32 = -1
        var count = 0
        for cell in table.cells(of: chat) {
            let member = table.member(at: cell)
            let user = table.user(of: member)
            if let absent, user == absent { continue }
            let partition = table.partition(of: member)
            let isFirst = partition != open
            if isFirst {
                if open >= 0 { end(&self, open) }
                beginRecipients()
                open = partition
            }
            recipient(user, isFirst: isFirst)
            count += 1
        }
        if open >= 0 { end(&self, open) }
        return count
    }

    // MARK: Membership

    mutating func write(_ event: MembershipEvent) {
        beginEvent()
        self.event.object { json in
            json.field("type", "member")
            json.field("chat", event.chat)
            json.field("user", event.user)
            json.field("change", event.change.rawValue)
            json.field("meta_version", event.metaVersion)
        }
    }

    mutating func write(_ change: BulkChange, of chat: ChatID, metaVersion: Int64) {
        beginEvent()
        event.object { json in
            json.field("type", "members_changed")
            json.field("chat", chat)
            json.field("added", change.added)
            json.field("removed", change.removed)
            json.field("roles", change.roles)
            json.field("meta_version", metaVersion)
        }
    }

    /// Tells all members, if they are ever told of others.
    mutating func tellAll(of chat: ChatID, in table: borrowing MembershipTable, largeChat: Int) -> Int {
        guard let chat = table.findLogged(chat), table.memberCount(of: chat) <= largeChat else { return 0 }
        return list(chat, of: table, except: nil) { $0.endRecipients(partition: $1) }
    }

    /// Tells of a change, the one it is about being in the table. In a small chat all members are told; in a large one, and
    /// of one change among many (`alone`), only the one whom it concerns. When the chat grows over the limit or shrinks
    /// below it, all are told and become its audience or cease to be.
    mutating func tell(
        _ event: MembershipEvent, of table: borrowing MembershipTable, largeChat: Int, alone: Bool
    ) -> Int {
        guard let chat = table.findLogged(event.chat) else { return 0 }
        let count = table.memberCount(of: chat)
        if count <= largeChat, !alone {
            return list(chat, of: table, except: nil) { $0.endRecipients(partition: $1) }
        }
        var move: AudienceMove?
        switch event.change {
        case .added: move = .enter
        case .removed: move = .leave
        case .role: move = nil
        }
        if count <= largeChat { move = nil }
        if let move, count == largeChat + 1 {
            return list(chat, of: table, except: nil) { $0.endRecipients(partition: $1, move, event.chat) }
        }
        beginRecipients()
        recipient(event.user, isFirst: true)
        let partition = event.user.partition(count: table.deliveryPartitions)
        if let move {
            endRecipients(partition: partition, move, event.chat)
        } else {
            endRecipients(partition: partition)
        }
        return 1
    }

    // MARK: Signals

    mutating func write(_ signal: Signal) {
        beginEvent()
        event.object { json in
            json.field("type", signal.kind == .typing ? "typing" : "receipt")
            json.field("chat", signal.chat)
            json.field("from", signal.from)
            guard signal.kind != .typing else { return }
            json.field("kind", signal.kind.rawValue)
            if let seq = signal.seq { json.field("seq", seq) }
        }
    }

    // MARK: Answers to a sender

    /// A repeat is answered with the place that the message got the first time. It follows the chat server's own `sent`,
    /// which named the place of the repeat.
    mutating func answerAgain(_ message: IncomingMessage, seq: Int64, ts: Int64, _ deliveryPartitions: Int32) {
        beginEvent()
        event.object { json in
            json.field("type", "sent")
            json.field("id", message.id)
            json.field("chat", message.chat)
            json.field("seq", seq)
            json.field("ts", ts)
            json.field("repeat", true)
        }
        answer(message, deliveryPartitions)
    }

    mutating func refuse(_ message: IncomingMessage, _ rejection: Rejection, _ deliveryPartitions: Int32) {
        beginEvent()
        event.object { json in
            json.field("type", "error")
            json.field("id", message.id)
            json.field("chat", message.chat)
            json.field("code", rejection.rawValue)
            json.field("message", rejection.message)
        }
        answer(message, deliveryPartitions)
    }

    private mutating func answer(_ message: IncomingMessage, _ deliveryPartitions: Int32) {
        beginRecipients()
        recipient(message.from, isFirst: true)
        endRecipients(partition: message.from.partition(count: deliveryPartitions), device: message.device)
    }
}
