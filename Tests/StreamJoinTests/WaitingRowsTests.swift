import TestSupport
import Testing
import Wire

@testable import StreamJoin

extension RowChange {
    fileprivate var isMember: Bool { if case .member = content { true } else { false } }
    /// Whether it is one of those that are counted by chat.
    fileprivate var counts: Bool { if case .chatDeleted = content { false } else { true } }
}

@Suite struct WaitingRowsTests {
    private func entry(_ offset: Int64, _ chats: [ChatID], using random: inout SeededGenerator)
        -> MembershipChanges.Entry
    {
        let chat = chats[Int.random(in: 0..<chats.count, using: &random)]
        let roles: [MemberRow.Role?] = [nil, .member, .admin]
        let origins: [MembershipChanges.Origin] = [.stream, .firstSnapshot, .laterSnapshot]
        let content: RowChange.Content
        switch Int.random(in: 0..<10, using: &random) {
        case 0: content = .chatDeleted(chat)
        case 1, 2:
            content = .chat(
                chat, metaVersion: .random(in: 0 ... .max, using: &random), isSnapshot: .random(using: &random))
        default:
            let member = MembershipChanges.Member(
                chat: chat, user: .random(using: &random), role: roles[Int.random(in: 0..<3, using: &random)],
                origin: origins[Int.random(in: 0..<3, using: &random)])
            content = .member(member, mayBeUnchanged: .random(using: &random))
        }
        let transaction: Int64? = Int.random(in: 0..<20, using: &random) == 0 ? nil : offset / 50
        return MembershipChanges.Entry(
            offset: offset, row: RowChange(transaction: transaction, lsn: transaction.map { $0 * 10 }, content: content)
        )
    }

    @Test func `what waits comes out as it went in, with what is known of its chat`() throws {
        let seed = SeededGenerator.freshSeed()
        print("seed \(seed) (waiting rows; FANOUT_SEED=\(seed) runs it again)")
        var random = SeededGenerator(seed)
        let chats = (0..<5).map { _ in ChatID.random(using: &random) }
        var rows = WaitingRows()
        var model: [MembershipChanges.Entry] = []
        var offset: Int64 = 0
        for step in 0..<40_000 {
            // Grows over several chunks, then shrinks to nothing, again and again.
            let grows = step % 20_000 < 12_000
            if Int.random(in: 0..<100, using: &random) < (grows ? 95 : 5) {
                // Now and then further than a chunk reaches.
                offset += Int.random(in: 0..<500, using: &random) == 0 ? 20_000_000 : .random(in: 1...3, using: &random)
                let next = entry(offset, chats, using: &random)
                rows.append(next)
                model.append(next)
            } else if !model.isEmpty {
                rows.removeFirst()
                model.removeFirst()
            }
            #expect(rows.count == model.count && rows.isEmpty == model.isEmpty)
            guard step % 97 == 0, let first = model.first, let last = model.last else { continue }
            let (entry, part) = rows.first
            try #require(entry == first && rows.firstOffset == first.offset)
            #expect(rows.lastContent == last.row.content)
            let next = model.first { $0.row.transaction != first.row.transaction }
            switch rows.following {
            case .nothing: #expect(next == nil)
            case .transaction(let lsn): #expect(next != nil && next?.row.lsn == lsn)
            }
            let chat = first.row.place.chat
            let ofChat = model.filter { $0.row.place.chat == chat && $0.row.counts }
            #expect(rows.hasMembers(of: ChatID(chat)) == ofChat.contains { $0.row.isMember })
            // What follows of the chat, up to where another transaction has a row of it.
            let ofPart = ofChat.prefix { $0.row.transaction == ofChat[0].row.transaction }
            let versions = ofPart.compactMap {
                if case .chat(_, let version, _) = $0.row.content { version } else { nil }
            }
            guard first.row.counts else { continue }
            #expect(part.transaction == first.row.transaction)
            #expect(part.memberRows == ofPart.count { $0.row.isMember } && part.versionRows == versions.count)
            if let highest = versions.max() { #expect(part.version >= highest) }
        }
    }
}
