import PostgresClient
import Runtime
import Store
import System
import TestSupport
import Testing
import Wire

/// A group never stays without an admin (postgres/005_last_admin.sql).
@Suite struct LastAdminTests {
    /// A group of known users whose first member is its admin; each joined a day after the one before, the last two at once.
    private struct Group: ~Copyable {
        var store: StoreConnection
        let users: [UserID]
        let chat: ChatID

        init(_ count: Int = 4) throws {
            var store = try freshStore()
            let users = (0..<count).map { _ in UserID.random() }
            for user in users { try store.run(Accounts.putUser(user, name: "somebody")) }
            let chat = try store.group(users)
            for (number, user) in users.enumerated() {
                try store.postgres.query(
                    "UPDATE members SET joined_at = to_timestamp($2 * 86400) WHERE user_id = $1",
                    [.id(user), .int(Int64(min(number, count - 2)))])
            }
            self.store = store
            self.users = users
            self.chat = chat
        }

        mutating func admins() throws -> [UserID] {
            try store.rows(Membership.members(of: chat)).filter(\.isAdmin).map(\.user)
        }

        mutating func version() throws -> Int64? { try store.first(Membership.version(of: chat)) }

        mutating func disable(_ user: UserID, _ isDisabled: Bool = true) throws {
            try store.postgres.query(
                "UPDATE users SET disabled = $2 WHERE user_id = $1", [.id(user), .bool(isDisabled)])
        }
    }

    @Test func `when the last admin leaves, the member who has been there longest becomes admin`() throws {
        var group = try Group()
        #expect(try group.admins() == [group.users[0]])
        try group.store.run(Accounts.removeMember(group.users[0], from: group.chat))
        #expect(try group.admins() == [group.users[1]])
        #expect(try group.version() == 3, "a removal, and a change of role")
        try group.store.postgres.query("DELETE FROM members WHERE user_id = $1", [.id(group.users[1])])
        #expect(try group.admins() == [group.users[2...3].min()!], "among those who came together, the lowest id")
        try group.store.postgres.query("DELETE FROM members WHERE chat_id = $1", [.id(group.chat)])
        #expect(try group.admins() == [])
    }

    @Test func `while there is another admin nobody is promoted`() throws {
        var group = try Group()
        try group.store.run(Accounts.putMember(group.users[3], in: group.chat, isAdmin: true))
        try group.store.run(Accounts.removeMember(group.users[0], from: group.chat))
        #expect(try group.admins() == [group.users[3]])
        try group.store.run(Accounts.removeMember(group.users[1], from: group.chat))
        #expect(try group.admins() == [group.users[3]])
        #expect(try group.version() == 4)
    }

    @Test func `the last admin who is made a plain member is followed by another, unless they are alone`() throws {
        var group = try Group()
        try group.store.run(Accounts.putMember(group.users[0], in: group.chat, isAdmin: false))
        #expect(try group.admins() == [group.users[1]])
        for user in group.users where user != group.users[1] {
            try group.store.run(Accounts.removeMember(user, from: group.chat))
        }
        try group.store.run(Accounts.putMember(group.users[1], in: group.chat, isAdmin: false))
        #expect(try group.admins() == [group.users[1]])
    }

    @Test func `who is disabled is nobody's admin and is not made one`() throws {
        var group = try Group()
        try group.disable(group.users[1])
        #expect(try group.admins() == [group.users[0]])
        try group.disable(group.users[0])
        let heir = group.users[2...3].min()!
        #expect(try group.admins() == [group.users[0], heir].sorted())
        let other = group.users[2...3].max()!
        try group.store.run(Accounts.removeMember(heir, from: group.chat))
        #expect(try group.admins() == [group.users[0], other].sorted())
        try group.disable(other)
        try group.store.run(Accounts.removeMember(group.users[0], from: group.chat))
        #expect(try group.admins() == [other], "there is nobody who could be")
        try group.disable(group.users[1], false)
        #expect(try group.admins() == [group.users[1], other].sorted(), "now there is")
    }

    @Test func `a user who is deleted leaves no group without an admin`() throws {
        var group = try Group()
        try group.store.postgres.query("DELETE FROM users WHERE user_id = $1", [.id(group.users[0])])
        #expect(try group.admins() == [group.users[0], group.users[1]].sorted())
    }

    @Test func `of two admins who leave at the same time, the second one sees that the first is gone`() throws {
        let database = try PostgresCluster.shared().freshDatabase(migrated: true)
        var store = try StoreConnection(database)
        let (ann, bob, eve) = (UserID.random(), UserID.random(), UserID.random())
        let chat = try store.group([ann, bob, eve])
        try store.run(Accounts.putMember(bob, in: chat, isAdmin: true))
        try store.postgres.execute("BEGIN")
        try store.run(Accounts.removeMember(ann, from: chat))
        // A thread of its own: other tests may hold all those that tasks run on, and nobody gets a replication slot from this
        // server while the transaction is open.
        let failure = Guarded<String?>(nil)
        let second = System.Thread.start(name: "second") {
            do {
                var other = try StoreConnection(database)
                try other.run(Accounts.removeMember(bob, from: chat))
            } catch {
                failure.withLock { $0 = "\(error)" }
            }
        }
        let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND locktype = 'transactionid'"
        let isWaiting = try eventually { try store.postgres.query(waits).int(0, 0) != 0 }
        try store.postgres.execute("COMMIT")
        second.join()
        #expect(isWaiting)
        #expect(failure.withLock { $0 } == nil)
        #expect(try store.rows(Membership.members(of: chat)) == [Membership.Member(user: eve, isAdmin: true)])
    }

    @Test func `direct chats have no admins, and a chat that is deleted needs none`() throws {
        var group = try Group()
        let (one, other) = (group.users[0], group.users[1])
        let direct = try #require(try group.store.first(Accounts.directChat(.random(), one, other)))
        let before = try group.store.rows(Membership.members(of: direct))
        try group.disable(group.users[0])
        #expect(try group.store.rows(Membership.members(of: direct)) == before)
        try group.store.postgres.query("DELETE FROM chats WHERE chat_id = $1", [.id(group.chat)])
        #expect(try group.admins() == [])
    }

    @Test func `groups that have lost their admin before are given one when the schema is brought up to date`() throws {
        var store = try StoreConnection(try PostgresCluster.shared().freshDatabase())
        let step = try #require(Schema.migrations.firstIndex { $0.name == "last_admin" })
        try Migrations.apply(Array(Schema.migrations[..<step]), to: &store.postgres)
        let users = (0..<3).map { _ in UserID.random() }
        let orphan = try store.group(users)
        let fine = try store.group(users)
        try store.run(Accounts.removeMember(users[0], from: orphan))
        #expect(try store.rows(Membership.members(of: orphan)).filter(\.isAdmin).isEmpty)
        let version = try store.first(Membership.version(of: fine))
        try Migrations.apply(to: &store.postgres)
        #expect(
            try store.rows(Membership.members(of: orphan)).filter(\.isAdmin).map(\.user) == [users[1...].min()!])
        #expect(try store.first(Membership.version(of: fine)) == version)
    }
}
