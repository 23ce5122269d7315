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
            // A version never falls, except where a snapshot says so: a database brought back from a backup.
            if !isExact, let known = table.findLogged(chat), table.exists(known) {
                version = max(version, table.metaVersion(of: known))
            }
            table.setChat(chat, metaVersion: version)
        case .chatDeleted(let chat):
            table.deleteChat(chat)
        }
    }
}
