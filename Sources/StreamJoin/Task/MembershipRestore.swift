import Wire

extension MembershipChanges {
    /// So many records are looked at together.
    private static let aheadMax = 128

    /// A record below the committed position: it changes the table and nobody is told. It may do so together with some of
    /// those that follow; `settle` sees to it that it has.
    mutating func restore(
        key: Span<UInt8>?, value: Span<UInt8>?, offset: Int64, into table: inout MembershipTable
    ) {
        if let value, let row = forms.find(value) {
            ahead.append(Entry(offset: offset, row: row))
            if ahead.count == Self.aheadMax { settle(&table) }
            return
        }
        settle(&table)
        do throws(JSONError) {
            try receive(key: key, value: value, offset: offset)
        } catch {
            // It was reported when it was new.
        }
        applySteps(&table)
    }

    /// Applies what `restore` has put off.
    mutating func settle(_ table: inout MembershipTable) {
        guard !ahead.isEmpty else { return }
        places.removeAll(keepingCapacity: true)
        for entry in ahead { places.append(entry.row.place) }
        table.readAhead(places)
        for entry in ahead {
            // What a snapshot has read waits for nothing.
            if isEmpty, let change = entry.row.snapshotChange {
                change.apply(to: &table)
            } else {
                push(entry)
                applySteps(&table)
            }
        }
        ahead.removeAll(keepingCapacity: true)
    }

    /// What waits is applied as it is.
    mutating func restored(into table: inout MembershipTable) {
        settle(&table)
        applySteps(&table, isComplete: true)
    }

    private mutating func applySteps(_ table: inout MembershipTable, isComplete: Bool = false) {
        while let step = next(table, isComplete: isComplete) {
            if case .apply(let change, _) = step { change.apply(to: &table) }
        }
    }

    /// A record that was read before the commit although the position in it is not beyond: something waited in front of it,
    /// and will be read again. Only a whole membership did not wait.
    func restoreMembership(_ value: Span<UInt8>?, into table: inout MembershipTable) {
        guard let value, case .membership(let membership) = try? MembershipRecord(decoding: value) else { return }
        change(membership).apply(to: &table)
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
