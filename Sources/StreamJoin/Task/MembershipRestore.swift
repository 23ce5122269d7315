import Wire

extension MembershipChanges {
    /// A record below the committed position: it changes the table and nobody is told.
    mutating func restore(
        key: Span<UInt8>?, value: Span<UInt8>?, offset: Int64, into table: inout MembershipTable
    ) {
        do throws(JSONError) {
            try receive(key: key, value: value, offset: offset)
        } catch {
            // It was reported when it was new.
        }
        while let step = next(table) {
            if case .apply(let change, _) = step { change.apply(to: &table) }
        }
    }

    /// A record that was read before the commit although the position in it is not beyond: something waited in front of it,
    /// and will be read again. Only a whole membership did not wait.
    func restoreMembership(_ value: Span<UInt8>?, into table: inout MembershipTable) {
        guard let value, let envelope = try? ChangeEnvelope(decoding: value),
            envelope.table.equals(ChatMembership.table, in: value),
            let membership = try? ChatMembership(decoding: value.extracting(envelope.row))
        else { return }
        change(membership).apply(to: &table)
    }

    /// What waits is applied as it is.
    mutating func restored(into table: inout MembershipTable) {
        while let step = next(table, isComplete: true) {
            if case .apply(let change, _) = step { change.apply(to: &table) }
        }
    }
}

extension MembershipChanges.Change {
    func apply(to table: inout MembershipTable) {
        switch self {
        case .member(let member, _):
            if let role = member.role {
                table.put(member.user, in: member.chat, role: role)
            } else {
                table.remove(member.user, from: member.chat)
            }
        case .chat(let chat, let metaVersion, let isExact):
            var version = metaVersion
            if let known = table.findLogged(chat), table.exists(known), version < table.metaVersion(of: known) {
                // A version never falls, except where a snapshot says so: a database brought back from a backup. What was
                // read from the one before it is no more then.
                if isExact { table.dropShadow(of: chat) } else { version = table.metaVersion(of: known) }
            }
            table.setChat(chat, metaVersion: version)
        case .membership(let membership, let isOver):
            let known = table.find(membership.chat).map { table.metaVersion(of: $0) } ?? 0
            if !isOver, membership.metaVersion > known { table.setShadow(membership) }
        case .chatDeleted(let chat):
            table.deleteChat(chat)
        }
    }
}
