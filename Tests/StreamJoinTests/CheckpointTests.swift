import System
import TestSupport
import Testing
import Wire

@testable import StreamJoin

@Suite struct CheckpointTests {
    private func filled(_ random: inout SeededGenerator) -> MembershipTable {
        var table = MembershipTable(deliveryPartitions: 5, listedMax: 16)
        let users = (0..<300).map { _ in UserID.random(using: &random) }
        var chats: [ChatID] = []
        for index in 0..<80 {
            let chat = ChatID.random(using: &random)
            chats.append(chat)
            for user in users.shuffled(using: &random).prefix(index) {
                table.put(user, in: chat, role: index % 3 == 0 ? .admin : .member)
            }
            table.setChat(chat, metaVersion: Int64(index))
        }
        for chat in chats.prefix(20) {
            for user in users { table.remove(user, from: chat) }
            table.deleteChat(chat)
        }
        return table
    }

    @Test func `a checkpoint brings the table back, with its shadows, and it goes on from there`() throws {
        var random = SeededGenerator.announced("checkpoint")
        let directory = try Directory.createTemporary()
        defer { try? Directory.removeAll(directory) }
        let path = directory + "/table"
        var table = filled(&random)
        let expected = plain(table)
        let (users, members) = (table.userCount, table.memberCount)
        let stranger = UserID.random(using: &random)
        let shadowed = try #require(expected.chats.keys.sorted().first)
        table.setShadow(ChatMembership(chat: shadowed, metaVersion: 1 << 40, members: [.init(stranger, .admin)]))
        try table.snapshot(positions: [3: 77, 0: 1 << 40], savedAtMs: 1_700_000_000_123).save(to: path)

        let snapshot = try MembershipSnapshot(loading: path, deliveryPartitions: 5, listedMax: 16)
        #expect(snapshot.positions == [3: 77, 0: 1 << 40] && snapshot.savedAtMs == 1_700_000_000_123)
        var loaded = MembershipTable(snapshot)
        #expect(plain(loaded) == expected)
        #expect(loaded.memberCount == members && loaded.shadowCount == 1)
        let found = loaded.find(shadowed)
        let shadow = try #require(found)
        let (version, role) = (loaded.metaVersion(of: shadow), loaded.member(stranger, of: shadow)?.role)
        #expect(version == 1 << 40 && role == .admin)
        loaded.dropShadow(of: shadowed)
        #expect(loaded.userCount == users && loaded.memberCount == members)
        // Free rows and blocks are used again: the loaded table grows as the old one would.
        table.dropShadow(of: shadowed)
        for _ in 0..<500 {
            let chat = Bool.random(using: &random) ? shadowed : ChatID.random(using: &random)
            let user = UserID.random(using: &random)
            table.put(user, in: chat, role: .member)
            loaded.put(user, in: chat, role: .member)
        }
        #expect(plain(loaded) == plain(table))
    }

    @Test func `a damaged checkpoint is refused, wherever the damage is`() throws {
        var random = SeededGenerator.announced("damage")
        let directory = try Directory.createTemporary()
        defer { try? Directory.removeAll(directory) }
        let path = directory + "/table"
        let table = filled(&random)
        try table.snapshot(positions: [1: 5], savedAtMs: 9).save(to: path)
        let good = try File.contents(of: path)
        func load(_ bytes: [UInt8]) throws {
            try File.replaceAtomically(path, with: bytes)
            _ = try MembershipSnapshot(loading: path, deliveryPartitions: 5, listedMax: 16)
        }
        try load(good)
        #expect(throws: MembershipSnapshot.Unusable.self) {
            _ = try MembershipSnapshot(loading: path, deliveryPartitions: 6, listedMax: 16)
        }
        for _ in 0..<300 {
            var bad = good
            bad[Int.random(in: 0..<bad.count, using: &random)] ^= 1 << UInt8.random(in: 0..<8, using: &random)
            #expect(throws: MembershipSnapshot.Unusable.self) { try load(bad) }
        }
        for length in [0, 1, 8, 119, 120, good.count / 2, good.count - 1] {
            #expect(throws: MembershipSnapshot.Unusable.self) { try load(Array(good.prefix(length))) }
        }
        #expect(throws: MembershipSnapshot.Unusable.self) { try load(good + [0]) }
    }
}
