-- The whole schema as it is after all migrations, written by `ansible-playbook playbooks/schema.yml`.
-- For reading and comparing; the migrations are what makes it. What provisioning gives the read-only role and settings of
-- the database are the role postgres's and not in here. Everything belongs to the role that runs this file.

SET check_function_bodies = off;

CREATE TYPE "AccountStatus" AS ENUM ('ACTIVE', 'PENDING_VERIFICATION', 'VERIFIED', 'REJECTED', 'LOCKED');

CREATE TYPE "AuditActionType" AS ENUM ('CONNECTION_REQUEST', 'CONNECTION_ACCEPT', 'CONNECTION_REVOKE', 'PERMISSION_CHANGE', 'PRESCRIPTION_CREATE', 'PRESCRIPTION_UPDATE', 'PRESCRIPTION_CONFIRM', 'PRESCRIPTION_RETAKE', 'DOSE_TAKEN', 'DOSE_SKIPPED', 'DOSE_MISSED', 'DATA_ACCESS', 'NOTIFICATION_SENT', 'SUBSCRIPTION_CHANGE');

CREATE TYPE "ConnectionStatus" AS ENUM ('PENDING', 'ACCEPTED', 'REVOKED');

CREATE TYPE "DoseEventStatus" AS ENUM ('DUE', 'TAKEN_ON_TIME', 'TAKEN_LATE', 'MISSED', 'SKIPPED');

CREATE TYPE "Gender" AS ENUM ('MALE', 'FEMALE', 'OTHER');

CREATE TYPE "Language" AS ENUM ('KHMER', 'ENGLISH');

CREATE TYPE "NotificationType" AS ENUM ('CONNECTION_REQUEST', 'PRESCRIPTION_UPDATE', 'MISSED_DOSE_ALERT', 'URGENT_PRESCRIPTION_CHANGE', 'FAMILY_ALERT');

CREATE TYPE "PermissionLevel" AS ENUM ('NOT_ALLOWED', 'REQUEST', 'SELECTED', 'ALLOWED');

CREATE TYPE "PrescriptionStatus" AS ENUM ('DRAFT', 'ACTIVE', 'PAUSED', 'INACTIVE');

CREATE TYPE "SubscriptionTier" AS ENUM ('FREEMIUM', 'PREMIUM', 'FAMILY_PREMIUM');

CREATE TYPE "Theme" AS ENUM ('LIGHT', 'DARK');

CREATE TYPE "TimePeriod" AS ENUM ('DAYTIME', 'NIGHT');

CREATE TYPE "UserRole" AS ENUM ('PATIENT', 'DOCTOR', 'FAMILY_MEMBER');

CREATE TABLE audit_logs (
    id uuid NOT NULL,
    "actorId" uuid,
    "actorRole" "UserRole",
    "actionType" "AuditActionType" NOT NULL,
    "resourceType" character varying(100) NOT NULL,
    "resourceId" uuid,
    details jsonb,
    "ipAddress" character varying(45),
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT audit_logs_pkey PRIMARY KEY (id)
);

CREATE TABLE connections (
    id uuid NOT NULL,
    "initiatorId" uuid NOT NULL,
    "recipientId" uuid NOT NULL,
    status "ConnectionStatus" DEFAULT 'PENDING'::"ConnectionStatus" NOT NULL,
    "permissionLevel" "PermissionLevel" DEFAULT 'ALLOWED'::"PermissionLevel" NOT NULL,
    "requestedAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "acceptedAt" timestamp(3) with time zone,
    "revokedAt" timestamp(3) with time zone,
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp(3) with time zone NOT NULL,
    CONSTRAINT connections_pkey PRIMARY KEY (id)
);

CREATE TABLE dose_events (
    id uuid NOT NULL,
    "prescriptionId" uuid NOT NULL,
    "medicationId" uuid NOT NULL,
    "patientId" uuid NOT NULL,
    "scheduledTime" timestamp(3) with time zone NOT NULL,
    "timePeriod" "TimePeriod" NOT NULL,
    "reminderTime" character varying(10),
    status "DoseEventStatus" DEFAULT 'DUE'::"DoseEventStatus" NOT NULL,
    "takenAt" timestamp(3) with time zone,
    "skipReason" text,
    "wasOffline" boolean DEFAULT false NOT NULL,
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp(3) with time zone NOT NULL,
    CONSTRAINT dose_events_pkey PRIMARY KEY (id)
);

CREATE TABLE family_members (
    id uuid NOT NULL,
    "subscriptionId" uuid NOT NULL,
    "memberId" uuid NOT NULL,
    "addedAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT family_members_pkey PRIMARY KEY (id)
);

CREATE TABLE meal_time_preferences (
    id uuid NOT NULL,
    "userId" uuid NOT NULL,
    "morningMeal" character varying(20),
    "afternoonMeal" character varying(20),
    "nightMeal" character varying(20),
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp(3) with time zone NOT NULL,
    CONSTRAINT meal_time_preferences_pkey PRIMARY KEY (id)
);

CREATE TABLE medications (
    id uuid NOT NULL,
    "prescriptionId" uuid NOT NULL,
    "rowNumber" integer NOT NULL,
    "medicineName" character varying(255) NOT NULL,
    "medicineNameKhmer" character varying(255),
    "imageUrl" text,
    "morningDosage" jsonb,
    "daytimeDosage" jsonb,
    "nightDosage" jsonb,
    frequency character varying(100),
    timing character varying(100),
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp(3) with time zone NOT NULL,
    CONSTRAINT medications_pkey PRIMARY KEY (id)
);

CREATE TABLE notifications (
    id uuid NOT NULL,
    "recipientId" uuid NOT NULL,
    type "NotificationType" NOT NULL,
    title character varying(255) NOT NULL,
    message text NOT NULL,
    data jsonb,
    "isRead" boolean DEFAULT false NOT NULL,
    "readAt" timestamp(3) with time zone,
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT notifications_pkey PRIMARY KEY (id)
);

CREATE TABLE prescription_versions (
    id uuid NOT NULL,
    "prescriptionId" uuid NOT NULL,
    "versionNumber" integer NOT NULL,
    "authorId" uuid,
    "changeReason" text,
    "medicationsSnapshot" jsonb NOT NULL,
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    CONSTRAINT prescription_versions_pkey PRIMARY KEY (id)
);

CREATE TABLE prescriptions (
    id uuid NOT NULL,
    "patientId" uuid NOT NULL,
    "doctorId" uuid,
    "patientName" character varying(200) NOT NULL,
    "patientGender" "Gender" NOT NULL,
    "patientAge" integer NOT NULL,
    symptoms text NOT NULL,
    status "PrescriptionStatus" DEFAULT 'DRAFT'::"PrescriptionStatus" NOT NULL,
    "currentVersion" integer DEFAULT 1 NOT NULL,
    "isUrgent" boolean DEFAULT false NOT NULL,
    "urgentReason" text,
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp(3) with time zone NOT NULL,
    CONSTRAINT prescriptions_pkey PRIMARY KEY (id)
);

CREATE TABLE subscriptions (
    id uuid NOT NULL,
    "userId" uuid NOT NULL,
    tier "SubscriptionTier" DEFAULT 'FREEMIUM'::"SubscriptionTier" NOT NULL,
    "storageQuota" bigint DEFAULT '5368709120'::bigint NOT NULL,
    "storageUsed" bigint DEFAULT 0 NOT NULL,
    "expiresAt" timestamp(3) with time zone,
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp(3) with time zone NOT NULL,
    CONSTRAINT subscriptions_pkey PRIMARY KEY (id)
);

CREATE TABLE users (
    id uuid NOT NULL,
    role "UserRole" NOT NULL,
    "firstName" character varying(100),
    "lastName" character varying(100),
    "fullName" character varying(200),
    "phoneNumber" character varying(20) NOT NULL,
    email character varying(255),
    "passwordHash" character varying(255) NOT NULL,
    "pinCodeHash" character varying(255),
    gender "Gender",
    "dateOfBirth" date,
    "idCardNumber" character varying(50),
    language "Language" DEFAULT 'KHMER'::"Language" NOT NULL,
    theme "Theme" DEFAULT 'LIGHT'::"Theme" NOT NULL,
    "hospitalClinic" character varying(255),
    specialty character varying(100),
    "licenseNumber" character varying(100),
    "licensePhotoUrl" text,
    "accountStatus" "AccountStatus" DEFAULT 'ACTIVE'::"AccountStatus" NOT NULL,
    "failedLoginAttempts" integer DEFAULT 0 NOT NULL,
    "lockedUntil" timestamp(3) with time zone,
    "createdAt" timestamp(3) with time zone DEFAULT CURRENT_TIMESTAMP NOT NULL,
    "updatedAt" timestamp(3) with time zone NOT NULL,
    CONSTRAINT users_pkey PRIMARY KEY (id)
);

CREATE INDEX "audit_logs_actionType_idx" ON audit_logs USING btree ("actionType");

CREATE INDEX "audit_logs_actorId_idx" ON audit_logs USING btree ("actorId");

CREATE INDEX "audit_logs_createdAt_idx" ON audit_logs USING btree ("createdAt");

CREATE INDEX "audit_logs_resourceId_idx" ON audit_logs USING btree ("resourceId");

CREATE INDEX "connections_initiatorId_idx" ON connections USING btree ("initiatorId");

CREATE UNIQUE INDEX "connections_initiatorId_recipientId_key" ON connections USING btree ("initiatorId", "recipientId");

CREATE INDEX "connections_recipientId_idx" ON connections USING btree ("recipientId");

CREATE INDEX "dose_events_patientId_idx" ON dose_events USING btree ("patientId");

CREATE INDEX "dose_events_patientId_scheduledTime_idx" ON dose_events USING btree ("patientId", "scheduledTime");

CREATE INDEX "dose_events_prescriptionId_idx" ON dose_events USING btree ("prescriptionId");

CREATE INDEX "dose_events_scheduledTime_idx" ON dose_events USING btree ("scheduledTime");

CREATE INDEX "family_members_subscriptionId_idx" ON family_members USING btree ("subscriptionId");

CREATE UNIQUE INDEX "family_members_subscriptionId_memberId_key" ON family_members USING btree ("subscriptionId", "memberId");

CREATE INDEX "meal_time_preferences_userId_idx" ON meal_time_preferences USING btree ("userId");

CREATE UNIQUE INDEX "meal_time_preferences_userId_key" ON meal_time_preferences USING btree ("userId");

CREATE INDEX "medications_prescriptionId_idx" ON medications USING btree ("prescriptionId");

CREATE INDEX "notifications_createdAt_idx" ON notifications USING btree ("createdAt");

CREATE INDEX "notifications_recipientId_idx" ON notifications USING btree ("recipientId");

CREATE INDEX "notifications_recipientId_isRead_idx" ON notifications USING btree ("recipientId", "isRead");

CREATE INDEX "prescription_versions_prescriptionId_idx" ON prescription_versions USING btree ("prescriptionId");

CREATE UNIQUE INDEX "prescription_versions_prescriptionId_versionNumber_key" ON prescription_versions USING btree ("prescriptionId", "versionNumber");

CREATE INDEX "prescriptions_doctorId_idx" ON prescriptions USING btree ("doctorId");

CREATE INDEX "prescriptions_patientId_idx" ON prescriptions USING btree ("patientId");

CREATE INDEX "prescriptions_patientId_status_idx" ON prescriptions USING btree ("patientId", status);

CREATE INDEX "subscriptions_userId_idx" ON subscriptions USING btree ("userId");

CREATE UNIQUE INDEX "subscriptions_userId_key" ON subscriptions USING btree ("userId");

CREATE INDEX "users_accountStatus_idx" ON users USING btree ("accountStatus");

CREATE UNIQUE INDEX "users_idCardNumber_key" ON users USING btree ("idCardNumber");

CREATE UNIQUE INDEX "users_licenseNumber_key" ON users USING btree ("licenseNumber");

CREATE INDEX "users_phoneNumber_idx" ON users USING btree ("phoneNumber");

CREATE UNIQUE INDEX "users_phoneNumber_key" ON users USING btree ("phoneNumber");

CREATE INDEX connections_status_idx ON connections USING btree (status);

CREATE INDEX dose_events_status_idx ON dose_events USING btree (status);

CREATE INDEX prescriptions_status_idx ON prescriptions USING btree (status);

CREATE INDEX subscriptions_tier_idx ON subscriptions USING btree (tier);

CREATE INDEX users_email_idx ON users USING btree (email);

CREATE UNIQUE INDEX users_email_key ON users USING btree (email);

CREATE INDEX users_role_idx ON users USING btree (role);

ALTER TABLE audit_logs ADD CONSTRAINT "audit_logs_actorId_fkey" FOREIGN KEY ("actorId") REFERENCES users(id) ON UPDATE CASCADE ON DELETE SET NULL;

ALTER TABLE connections ADD CONSTRAINT "connections_initiatorId_fkey" FOREIGN KEY ("initiatorId") REFERENCES users(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE connections ADD CONSTRAINT "connections_recipientId_fkey" FOREIGN KEY ("recipientId") REFERENCES users(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE dose_events ADD CONSTRAINT "dose_events_medicationId_fkey" FOREIGN KEY ("medicationId") REFERENCES medications(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE dose_events ADD CONSTRAINT "dose_events_patientId_fkey" FOREIGN KEY ("patientId") REFERENCES users(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE dose_events ADD CONSTRAINT "dose_events_prescriptionId_fkey" FOREIGN KEY ("prescriptionId") REFERENCES prescriptions(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE family_members ADD CONSTRAINT "family_members_memberId_fkey" FOREIGN KEY ("memberId") REFERENCES users(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE family_members ADD CONSTRAINT "family_members_subscriptionId_fkey" FOREIGN KEY ("subscriptionId") REFERENCES subscriptions(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE meal_time_preferences ADD CONSTRAINT "meal_time_preferences_userId_fkey" FOREIGN KEY ("userId") REFERENCES users(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE medications ADD CONSTRAINT "medications_prescriptionId_fkey" FOREIGN KEY ("prescriptionId") REFERENCES prescriptions(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE notifications ADD CONSTRAINT "notifications_recipientId_fkey" FOREIGN KEY ("recipientId") REFERENCES users(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE prescription_versions ADD CONSTRAINT "prescription_versions_authorId_fkey" FOREIGN KEY ("authorId") REFERENCES users(id) ON UPDATE CASCADE ON DELETE SET NULL;

ALTER TABLE prescription_versions ADD CONSTRAINT "prescription_versions_prescriptionId_fkey" FOREIGN KEY ("prescriptionId") REFERENCES prescriptions(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE prescriptions ADD CONSTRAINT "prescriptions_doctorId_fkey" FOREIGN KEY ("doctorId") REFERENCES users(id) ON UPDATE CASCADE ON DELETE SET NULL;

ALTER TABLE prescriptions ADD CONSTRAINT "prescriptions_patientId_fkey" FOREIGN KEY ("patientId") REFERENCES users(id) ON UPDATE CASCADE ON DELETE CASCADE;

ALTER TABLE subscriptions ADD CONSTRAINT "subscriptions_userId_fkey" FOREIGN KEY ("userId") REFERENCES users(id) ON UPDATE CASCADE ON DELETE CASCADE;
